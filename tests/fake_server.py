"""A fake server that speaks MySQL's protocol as its script says, for behaviour that real servers do not show.

A script is a function that is called with each connection's `Conversation`, in a thread; the connection ends when it returns.
"""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

SALT = b"0123456789abcdefghij"
_LONG_PASSWORD, _PROTOCOL_41, _TLS, _TRANSACTIONS, _SECURE, _PLUGINS = 1, 1 << 9, 1 << 11, 1 << 13, 1 << 15, 1 << 19
CAPABILITIES = _LONG_PASSWORD | _PROTOCOL_41 | _TRANSACTIONS | _SECURE | _PLUGINS
OK = b"\x00\x00\x00\x02\x00\x00\x00"
EOF = b"\xfe\x00\x00\x02\x00"


def handshake(plugin: str, *, tls: bool = False) -> bytes:
    """The first packet of a server."""
    capabilities = CAPABILITIES | (_TLS if tls else 0)
    flags = struct.pack("<HBHHB", capabilities & 0xFFFF, 45, 2, capabilities >> 16, 21)
    return b"\x0a8.4.9\0" + struct.pack("<I", 7) + SALT[:8] + b"\0" + flags + bytes(10) + SALT[8:] + b"\0" + plugin.encode() + b"\0"


def switch(plugin: str, data: bytes = SALT + b"\0") -> bytes:
    """A request to log in by another plugin."""
    return b"\xfe" + plugin.encode() + b"\0" + data


def error(code: int, text: str | bytes) -> bytes:
    """An error packet."""
    return b"\xff" + struct.pack("<H", code) + b"#HY000" + (text if isinstance(text, bytes) else text.encode())


class Hung(Exception):
    """The client has closed the connection."""


class Conversation:
    """One connection, from the server's side."""

    def __init__(self, connection: socket.socket, server: FakeServer) -> None:
        self.socket, self.server = connection, server
        self.sequence = 0

    def send(self, *payloads: bytes) -> None:
        """Send packets."""
        for payload in payloads:
            self.socket.sendall(struct.pack("<I", len(payload))[:3] + bytes((self.sequence,)) + payload)
            self.sequence = (self.sequence + 1) % 256

    def receive(self) -> bytes:
        """The client's next packet, also noted in `server.received`. Raises Hung."""
        header = self._exactly(4)
        payload = self._exactly(int.from_bytes(header[:3], "little"))
        self.sequence = (header[3] + 1) % 256
        self.server.received.append(payload)
        return payload

    def start_tls(self) -> None:
        """Read the client's TLS request, and continue encrypted."""
        self.receive()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate())
            file.flush()
            context.load_cert_chain(file.name)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise Hung
            data += part
        return data


@dataclass
class FakeServer:
    """Its address, and the packets that clients have sent."""

    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """With a user and SECRET."""
        return f"mysql://cdc:{SECRET}@127.0.0.1:{self.port}/"

    def knows_the_password(self) -> bool:
        """Whether the received packets reveal it, with our RSA key."""
        return any(SECRET.encode() in packet or _undone(packet) == SECRET.encode() for packet in self.received)


SECRET = "hunter2-of-the-tests"


@contextmanager
def fake_server(script: Callable[[Conversation], object]) -> Iterator[FakeServer]:
    """A server on loopback that answers by the script."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = FakeServer(listening.getsockname()[1])
    sockets: list[socket.socket] = [listening]
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        conversation = Conversation(connection, server)
        with suppress(OSError, Hung, ssl.SSLError):
            script(conversation)
        conversation.socket.close()

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.settimeout(30)
                sockets.append(connection)
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listener.join()
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join()


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_key() -> bytes:
    """The server's RSA key for passwords."""
    return _key().public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _undone(packet: bytes) -> bytes | None:
    """The password in a packet that was encrypted with our key."""
    with suppress(ValueError):
        hidden = _key().decrypt(packet, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        return bytes(byte ^ SALT[at % len(SALT)] for at, byte in enumerate(hidden)).rstrip(b"\0")
    return None


@cache
def certificate() -> bytes:
    """The server's certificate, signed by itself, and its key, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a stranger")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(_key().public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(_key(), hashes.SHA256())
    )  # fmt: skip
    key = _key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM) + key
