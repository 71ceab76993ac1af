"""Answers the server's requests for the password. PyMySQL would answer all of them; this module protects the password.

A server is not trusted until its certificate was verified, nor is the network in between:

* in clear text (mysql_clear_password, dialog) the password is sent only to a server whose certificate was verified; the mysql client needs
  --enable-cleartext-plugin instead,
* with caching_sha2_password and sha256_password it is sent unencrypted inside TLS, verified or not, as the mysql client does. Without TLS
  it is encrypted with the server's RSA key: the key that the URL names, or the key that the server sends if the URL allows that
  (get-server-public-key). The mysql client trusts the sent key for sha256_password without asking.

Sources: MySQL, "Caching_sha2_password information" and `sql-common/client_authentication.cc`; MariaDB, "Connection", "dialog".
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
from pymysql import _auth
from pymysql.constants import CR

from cdc.config import SourceUrl
from cdc.errors import CdcError, ConfigError

_FAST, _FULL = b"\x01\x03", b"\x01\x04"
_SEND_KEY_CACHING, _SEND_KEY_SHA256 = b"\x02", b"\x01"
_MOST_TURNS = 8
"""Most packets of a login. Three are needed; a server must not ask for ever."""


def plugins(url: SourceUrl) -> dict[str, Callable[[Any], Login]]:
    """PyMySQL's `auth_plugin_map`: the answers by authentication plugin. Raises ConfigError when the URL's key cannot be read."""
    public_key = _read_key(url.tls.public_key)
    answers = {
        "mysql_clear_password": _clear,
        "dialog": _clear,
        "caching_sha2_password": _caching_sha2,
        "sha256_password": _sha256,
        "mysql_old_password": _obsolete,
        "client_ed25519": _ed25519,
    }
    return {name: partial(Login, url, public_key, name, answer) for name, answer in answers.items()}


def _read_key(path: str) -> bytes:
    """The server's RSA key; empty if the URL names none."""
    try:
        return Path(path).expanduser().read_bytes() if path else b""
    except OSError as error:
        raise ConfigError(
            f"The file that the source URL names as server-public-key cannot be read: {error.strerror}.", hint="It is a PEM file."
        ) from error


class Login:
    """One connection's login with one plugin. PyMySQL calls `authenticate` for every packet until the login ends."""

    def __init__(
        self, url: SourceUrl, public_key: bytes, plugin: str, answer: Callable[[Login, Any], Any], connection: pymysql.Connection
    ) -> None:
        self.url, self.plugin, self.connection = url, plugin, connection
        self._public_key, self._answer = public_key, answer

    def authenticate(self, packet: Any) -> Any:
        """Answer the server's packet; returns its next one. Raises ConfigError for a request that is not safe to answer."""
        turns = self.connection.login_turns = getattr(self.connection, "login_turns", 0) + 1
        if turns > _MOST_TURNS:
            raise pymysql.OperationalError(CR.CR_MALFORMED_PACKET, "the login has no end")
        try:
            return self._answer(self, packet)
        except AttributeError as error:  # PyMySQL would take it for a handler without a method
            raise pymysql.OperationalError(CR.CR_MALFORMED_PACKET, f"the login cannot be read ({error})") from error

    @property
    def password(self) -> bytes:
        """The password's bytes."""
        return bytes(self.connection.password)

    @property
    def encrypted(self) -> bool:
        """Whether the connection is TLS, verified or not."""
        return isinstance(self.connection._sock, ssl.SSLSocket)

    @property
    def verified(self) -> bool:
        """Whether the server has shown a certificate that was verified."""
        return self.encrypted and self.connection._sock.context.verify_mode == ssl.CERT_REQUIRED

    def ask(self, data: bytes) -> Any:
        """Send a packet; returns the server's next one. Raises PyMySQL's error if that is an error packet."""
        self.connection.write_packet(data)
        return self.connection._read_packet()

    def salt(self, packet: Any) -> bytes:
        """The random bytes in a request to switch to this plugin, else those of the handshake."""
        if packet.is_auth_switch_request():
            self.connection.salt = packet.read_all().removesuffix(b"\0")
        return bytes(self.connection.salt)

    def send_encrypted(self, salt: bytes, request_for_key: bytes, offered: bytes = b"") -> Any:
        """Send the password encrypted with a trusted key. `offered` is a key that the server has sent already."""
        key = self._public_key or self._fetched(request_for_key, offered)
        try:
            encrypted = _auth.sha2_rsa_encrypt(self.password, salt, key)
        except Exception as error:  # invalid keys raise errors of many classes
            raise ConfigError(
                f"The public key for {self.url.redacted} cannot be used: it is not an RSA key in PEM format.",
                hint="server-public-key is a copy of the file that the server has as public_key.pem.",
            ) from error
        return self.ask(encrypted)

    def _fetched(self, request: bytes, offered: bytes) -> bytes:
        if not self.url.tls.get_public_key:
            raise ConfigError(
                f"{self.url.redacted} asks for the password ({self.plugin}) over a connection without TLS.",
                hint="Use TLS (ssl-mode=required in the URL, and set it up on the server), or name the server's RSA key with "
                "server-public-key=FILE; get-server-public-key trusts whichever key comes over the network.",
            )
        if offered:
            return offered
        packet = self.ask(request)
        if not packet.is_extra_auth_data():
            raise self.malformed()
        return bytes(packet.get_all_data()[1:])

    def malformed(self) -> CdcError:
        """The error for a packet that cannot be read."""
        return CdcError(
            f"{self.url.redacted} sent a login that cannot be read ({self.plugin}).", hint="Check whether a proxy is in between."
        )


def _clear(login: Login, packet: Any) -> Any:
    """MariaDB's `dialog` asks its first question in the packet; the password is the answer. Further questions are not answered."""
    if not login.verified:
        raise ConfigError(
            f"{login.url.redacted} asks for the password in clear text ({login.plugin}), and no certificate has verified its identity.",
            hint="Verify the certificate with ssl-mode=verify_identity&ssl-ca=FILE in the URL, or use a user with another plugin. "
            "If the server has never asked for this before, another server may be answering in its place.",
        )
    return login.ask(login.password + b"\0")


def _caching_sha2(login: Login, packet: Any) -> Any:
    switched = packet.is_auth_switch_request()
    salt = login.salt(packet)
    if not login.password:
        return login.ask(b"")
    if switched:
        packet = login.ask(_auth.scramble_caching_sha2(login.password, salt))
    data = packet.get_all_data()
    if data == _FAST:
        return login.connection._read_packet()
    if data != _FULL:
        return packet if packet.is_ok_packet() else _raise(login.malformed())
    return login.ask(login.password + b"\0") if login.encrypted else login.send_encrypted(salt, _SEND_KEY_CACHING)


def _sha256(login: Login, packet: Any) -> Any:
    """The server may send its key, since PyMySQL's first packet asks for it. The key counts only if the URL allows that."""
    salt = login.salt(packet)
    if not login.password:
        return login.ask(b"\0")
    if login.encrypted:
        return login.ask(login.password + b"\0")
    offered = packet.get_all_data()[1:] if packet.is_extra_auth_data() else b""
    return login.send_encrypted(salt, _SEND_KEY_SHA256, offered)


def _obsolete(login: Login, packet: Any) -> Any:
    raise ConfigError(
        f"{login.url.redacted} asks for the password in the form of MySQL before 4.1 ({login.plugin}), which is not safe.",
        hint="Give the user a current plugin: ALTER USER ... IDENTIFIED WITH caching_sha2_password BY ...",
    )


def _ed25519(login: Login, packet: Any) -> Any:
    try:
        return login.ask(_auth.ed25519_password(login.password, packet.read_all()))
    except RuntimeError as error:
        raise ConfigError(
            f"The user {login.url.user!r} of {login.url.redacted} logs in with ed25519, which needs the Python package PyNaCl.",
            hint="pip install pynacl, or use a user with another plugin.",
        ) from error


def _raise(error: CdcError) -> Any:
    raise error
