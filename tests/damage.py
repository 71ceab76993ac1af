"""Conversations of a real server, recorded between it and a client, and replayed with damages of every kind."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tests.fake_server import Conversation, error

Burst = list[bytes]
"""Packets of the server, with their headers, up to the client's next one."""

IDLE_SECONDS = 0.05
"""How long the client may be silent after a damaged packet: it waits for more, which does not come."""


def packets(data: bytes) -> Burst:
    """Bytes of the server as packets."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "little")
        found.append(data[at : at + 4 + size])
        at += 4 + size
    return found


@contextmanager
def recording(host: str, port: int) -> Iterator[tuple[int, list[list[Burst]]]]:
    """A port that leads to the server; collects the bytes of each connection once it has ended."""
    listening = socket.create_server(("127.0.0.1", 0))
    recorded: list[list[Burst]] = []
    threads = []

    def pass_on(client: socket.socket) -> None:
        bursts, slot = [b""], len(recorded)
        recorded.append([])
        with client, socket.create_connection((host, port)) as server:

            def down() -> None:
                with suppress(OSError):
                    while data := server.recv(1 << 16):
                        bursts[-1] += data
                        client.sendall(data)
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

            downwards = threading.Thread(target=down)
            downwards.start()
            with suppress(OSError):
                while data := client.recv(1 << 16):
                    bursts.append(b"")
                    server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            downwards.join()
        recorded[slot] = [packets(burst) for burst in bursts]

    def listen() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threads.append(threading.Thread(target=pass_on, args=(client,)))
                threads[-1].start()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield listening.getsockname()[1], recorded
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        listener.join()
        for thread in threads:
            thread.join()


class DamagingProxy:
    """Leads to a server, over any number of connections, and damages one packet of the server, the `at`-th overall.

    The connection ends a second later, because a client may wait for minutes for bytes that a packet has promised.
    """

    def __init__(self, host: str, port: int, rng: random.Random, at: int) -> None:
        self._there, self._rng, self._at = (host, port), rng, at
        self.passed = 0
        self.what = "nothing"
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._run(self._listen)

    def __enter__(self) -> DamagingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()
        for each in (self._listening, *self._sockets):
            each.close()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._there)
                self._sockets += (client, server)
                self._run(self._pass, client, server, lambda data: (data, b""))
                self._run(self._pass, server, client, partial(self._damaged, client))

    def _pass(self, source: socket.socket, sink: socket.socket, through: Callable[[bytes], tuple[bytes, bytes]]) -> None:
        """Pass on what `through` makes of the received bytes; it returns those that begin an incomplete packet."""
        rest = b""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                data, rest = through(rest + data)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _damaged(self, client: socket.socket, data: bytes) -> tuple[bytes, bytes]:
        passed = []
        while len(data) >= 4 and len(data) >= (size := 4 + int.from_bytes(data[:3], "little")):
            packet, data = data[:size], data[size:]
            with self._lock:
                self.passed += 1
                if self.passed == self._at:
                    self.what, burst = damaged(self._rng, [packet])
                    packet = b"".join(burst)
                    self._threads.append(threading.Timer(1.0, _end, (client,)))
                    self._threads[-1].start()
            passed.append(packet)
        return b"".join(passed), data


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def headed(payload: bytes, sequence: int) -> bytes:
    """A packet."""
    return len(payload).to_bytes(3, "little") + bytes((sequence % 256,)) + payload


CONTROLS = "\x1b[2J\x1b]0;owned\x07 {user} \r\ncdc: identical"
PLANTED = (
    b"", b"\x00", b"\xfe", b"\xff", b"\xff\x15", b"\xff\x15\x04#", b"\xfb", b"\xfb/etc/passwd", b"\xfc", b"\xfe" + b"\xff" * 8, b"\x01",
    b"\x01\x03", b"\x01\x04", b"\x02", b"\xfe\x00\x00\x02\x00", b"\x00\x00\x00\x02\x00\x00\x00", b"\x00\x00\x00\x0a\x00\x00\x00",
    b"\xfd\xff\xff\xff", b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0a8.4\0", b"\x09" + b"3.23.58\0" + bytes(4) + b"12345678\0",
    b"\xfemysql_clear_password\0", b"\xfedialog\0\x04Password: \0", b"\xfe\xff\xfe\0", b"\xfecaching_sha2_password\0", b"\x0a\xff\0",
    error(1105, CONTROLS), error(1236, CONTROLS), error(1045, CONTROLS), error(65535, b"\xff\xfe"), error(1146, "x" * 70_000),
)  # fmt: skip
"""Packets that mean something, most of them somewhere else."""


def damaged(rng: random.Random, burst: Burst) -> tuple[str, Burst]:
    """The kind of damage, and the packets with it."""
    burst = list(burst)
    at = rng.randrange(len(burst))
    header, payload = bytearray(burst[at][:4]), bytearray(burst[at][4:])
    what = rng.choice(list(DAMAGES))
    burst[at : at + 1] = DAMAGES[what](rng, burst, header, payload)
    return what, burst


def _bytes(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    for _ in range(rng.choice((1, 1, 2, 5))):
        if payload:
            at = min(rng.randrange(len(payload)), rng.randrange(len(payload)) if rng.random() < 0.5 else len(payload))
            payload[at] = rng.choice(
                (0, 1, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF, rng.randrange(256), payload[at] ^ 1 << rng.randrange(8))
            )
    return [bytes(header + payload)]


def _cut(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(bytes(payload[: rng.randrange(len(payload) + 1)]), header[3])]


def _longer(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    at = rng.choice((len(payload), rng.randrange(len(payload) + 1)))
    return [headed(bytes(payload[:at]) + rng.randbytes(rng.choice((1, 2, 9, 300))) + bytes(payload[at:]), header[3])]


def _length(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    said = rng.choice((0, 1, len(payload) + 1, len(payload) - 1, 0xFFFFFF, 0xFFFF, rng.randrange(1 << 24))) & 0xFFFFFF
    return [said.to_bytes(3, "little") + bytes(header[3:] + payload)]


def _sequence(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(bytes(payload), rng.choice((0, header[3] + 1, rng.randrange(256))))]


def _planted(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(rng.choice(PLANTED), header[3])]


def _planted_before(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(rng.choice(PLANTED), header[3]), headed(bytes(payload), header[3] + 1)]


def _moved(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(rng.choice(burst)[4:], header[3])]


def _left_out(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return []


def _repeated(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(bytes(payload), header[3] + each) for each in range(rng.choice((2, 3, 1000)))]


def _noise(rng: random.Random, burst: Burst, header: bytearray, payload: bytearray) -> Burst:
    return [headed(rng.randbytes(rng.choice((0, 1, 4, 40, 400))), header[3])]


DAMAGES: dict[str, Callable[[random.Random, Burst, bytearray, bytearray], Burst]] = {
    "bytes changed": _bytes,
    "cut": _cut,
    "longer": _longer,
    "wrong length": _length,
    "wrong sequence": _sequence,
    "another packet": _planted,
    "a packet before": _planted_before,
    "one of the others": _moved,
    "left out": _left_out,
    "repeated": _repeated,
    "noise": _noise,
}


class Damaged:
    """Replays a recorded conversation, one burst for each packet of the client, with a damage to one of them."""

    def __init__(self, bursts: list[Burst], rng: random.Random) -> None:
        self.bursts = [list(burst) for burst in bursts]
        places = [number for number, burst in enumerate(bursts) if burst]
        self.at = rng.choice(places[: 1 + int(len(places) * rng.choice((0.1, 0.5, 1.0)))] or places)
        """The beginning more often than the rest, which is reached less often."""
        self.what, self.bursts[self.at] = damaged(rng, bursts[self.at])

    def __call__(self, talk: Conversation) -> None:
        """The script of a fake server."""
        for number, burst in enumerate(self.bursts):
            talk.socket.sendall(b"".join(burst))
            talk.socket.settimeout(30 if number < self.at else IDLE_SECONDS)
            talk.receive()
