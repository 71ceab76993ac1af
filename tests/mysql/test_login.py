"""What a server gets of the password: fake servers that ask for it, and real ones asked the right way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdc.config import SourceUrl
from cdc.errors import CdcError, ConfigError
from cdc.model import Position
from cdc.model.gtid import GtidSet
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import connect, quote_identifier
from cdc.mysql.snapshot import SnapshotReader
from tests.fake_server import Conversation, certificate, error, fake_server, handshake, public_key, switch
from tests.fix_migration import Project

pytestmark = pytest.mark.waits

Open = Callable[[SourceUrl], object]


def control(source: SourceUrl) -> None:
    connect(source).abandon()


def chunks(source: SourceUrl) -> None:
    SnapshotReader(source).log_end()


def stream(source: SourceUrl) -> None:
    next(iter(BinlogReader(source, Position(GtidSet()), [], heartbeat_seconds=1.0)))


@pytest.fixture(params=[control, chunks, stream], ids=lambda each: each.__name__)
def open_connection(request: pytest.FixtureRequest) -> Open:
    """Connect in each of the ways that a migration does."""
    found: Open = request.param
    return found


# those who ask


def asks(plugin: str, *, first: str = "caching_sha2_password", tls: bool = False) -> Callable[[Conversation], None]:
    """Switches to a plugin, with its data, and accepts every answer."""

    def script(talk: Conversation) -> None:
        talk.send(handshake(first, tls=tls))
        if tls:
            talk.start_tls()
        talk.receive()
        talk.send(switch(plugin, b"\x04Password: " if plugin == "dialog" else b"0123456789abcdefghij\0"))
        talk.receive()
        talk.send(b"\x01" + (b"\x04" if plugin == "caching_sha2_password" else public_key()))
        talk.receive()
        talk.send(b"\x01" + public_key())
        talk.receive()
        talk.send(error(1045, "thank you"))

    return script


def full(plugin: str, *, tls: bool = False) -> Callable[[Conversation], None]:
    """Names the plugin at once, asks for the whole password, and sends its own key."""

    def script(talk: Conversation) -> None:
        talk.send(handshake(plugin, tls=tls))
        if tls:
            talk.start_tls()
        talk.receive()
        if plugin == "caching_sha2_password":  # a client of sha256_password has asked for the key already
            talk.send(b"\x01\x04")
            talk.receive()
        talk.send(b"\x01" + public_key())
        talk.receive()
        talk.send(error(1045, "thank you"))

    return script


CLEAR = "in clear text"
KEY = r"server-public-key=FILE; get-server-public-key"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (asks("mysql_clear_password"), CLEAR),
        (asks("dialog"), CLEAR),
        (asks("mysql_clear_password", tls=True), CLEAR),
        (asks("dialog", tls=True), CLEAR),
        (asks("mysql_clear_password", first="mysql_native_password"), CLEAR),
        (asks("caching_sha2_password", first="mysql_native_password"), KEY),
        (asks("sha256_password"), KEY),
        (full("caching_sha2_password"), KEY),
        (full("sha256_password"), KEY),
        (asks("mysql_old_password"), "before 4.1"),
        (asks("authentication_oci_client"), "authentication_oci_client"),
        (asks("client_ed25519"), "PyNaCl"),
    ],
)
def test_unverified_server_does_not_get_the_password(script: Callable[[Conversation], None], words: str, open_connection: Open) -> None:
    """Neither in clear text nor encrypted with the server's own key; the error says what to do."""
    with fake_server(script) as server:
        with pytest.raises(ConfigError, match=words):
            open_connection(SourceUrl.parse(server.url, {}))
        assert server.received
        assert not server.knows_the_password()


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
def test_key_in_the_url_overrides_the_key_sent_by_the_server(plugin: str, tmp_path: Path, open_connection: Open) -> None:
    """An unverified server cannot decrypt the answer."""
    (tmp_path / "another.pem").write_bytes(ANOTHER)
    with fake_server(full(plugin)) as server:
        with pytest.raises(CdcError):
            open_connection(SourceUrl.parse(f"{server.url}?server-public-key={tmp_path}/another.pem", {}))
        assert any(len(packet) == 256 for packet in server.received)
        assert not server.knows_the_password()


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
def test_get_server_public_key_trusts_the_sent_key(plugin: str, open_connection: Open) -> None:
    """This proves that the other tests could fail."""
    with fake_server(full(plugin)) as server:
        with pytest.raises(CdcError):
            open_connection(SourceUrl.parse(f"{server.url}?get-server-public-key", {}))
        assert server.knows_the_password()


@pytest.mark.parametrize("plugin", ["mysql_clear_password", "dialog"])
def test_clear_text_password_goes_only_to_a_verified_server(plugin: str, tmp_path: Path, open_connection: Open) -> None:
    """Over verified TLS it is as safe as any other method."""
    (tmp_path / "server.pem").write_bytes(certificate())
    with fake_server(asks(plugin, tls=True)) as server:
        with pytest.raises(CdcError):
            open_connection(SourceUrl.parse(f"{server.url}?ssl-ca={tmp_path}/server.pem", {}))
        assert server.knows_the_password()


def test_endless_login_is_cut_off(open_connection: Open) -> None:
    """The number of steps is bounded."""

    def script(talk: Conversation) -> None:
        talk.send(handshake("caching_sha2_password"))
        talk.receive()
        while True:
            talk.send(b"\x01\x03", b"\x01\x03")

    with fake_server(script) as server, pytest.raises(CdcError):
        open_connection(SourceUrl.parse(server.url, {}))


# the right ways, on real servers


@pytest.fixture
def user(project: Project) -> Iterator[Callable[[str], str]]:
    """Makes the test's user with a plugin, whose password the server has not cached; returns its URL."""
    name = f"u_{project.database}"

    def made(plugin: str) -> str:
        project.sql(
            f"CREATE USER {quote_identifier(name)} IDENTIFIED WITH {plugin} BY 'päss#wörd'",
            f"GRANT ALL ON *.* TO {quote_identifier(name)}",
            "FLUSH PRIVILEGES",
        )
        return f"mysql://{name}:p%C3%A4ss%23w%C3%B6rd@{project.source.address}/"

    yield made
    project.sql(f"DROP USER IF EXISTS {quote_identifier(name)}")


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password"])
def test_real_server_gets_the_password_over_tls_or_with_its_key(
    plugin: str, user: Callable[[str], str], project: Project, tmp_path: Path, open_connection: Open
) -> None:
    """Without TLS and without a key the login fails with a hint; the server's password cache is emptied each time."""
    url = user(plugin)
    status = "Caching_sha2_password_rsa_public_key" if plugin == "caching_sha2_password" else "Rsa_public_key"
    (tmp_path / "key.pem").write_text(str(project.admin.one(f"SHOW STATUS LIKE '{status}'")[1]))
    with pytest.raises(ConfigError, match=KEY):
        open_connection(SourceUrl.parse(f"{url}?ssl-mode=disabled", {}))
    for options in ("", "?ssl-mode=disabled&get-server-public-key", f"?ssl-mode=disabled&server-public-key={tmp_path}/key.pem"):
        project.sql("FLUSH PRIVILEGES")
        if open_connection is stream:
            project.sql("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)")
            found = BinlogReader(SourceUrl.parse(url + options, {}), Position(GtidSet()), [], heartbeat_seconds=1.0)
            assert next(iter(found)) is not None
            found.abandon()
        else:
            open_connection(SourceUrl.parse(url + options, {}))


def test_invalid_key_file_is_refused(project: Project, user: Callable[[str], str], tmp_path: Path) -> None:
    """Exit code 2, and a sentence that names the file."""
    url = user("caching_sha2_password")
    (tmp_path / "none.pem").write_text("no key")
    with pytest.raises(ConfigError, match="not an RSA key"):
        connect(SourceUrl.parse(f"{url}?ssl-mode=disabled&server-public-key={tmp_path}/none.pem", {}))
    with pytest.raises(ConfigError, match="server-public-key cannot be read: No such file"):
        connect(SourceUrl.parse(f"{url}?ssl-mode=disabled&server-public-key={tmp_path}/missing.pem", {}))


ANOTHER = b"""\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAkTqCwMX4MVdwV+H0V5k8
3JRQWgJA8VLQ5LRZlPOZp65zC0SdBnrEF9WqZ+L2/jPc4K2Y28ilnudOIuufG+Xp
VYaPmXhLdZTrGJi0hjus50EiArdbsF2hpG3hxeWDfSxJ+vLG+YiZkr+8FYca3G1b
PUYFSu9LnGgupmAG1CAthqE1/kdWr83nQOGLp9jx9K93+vwRGriSkN9/Rl/G7jgg
E/OZ972TG7vdfLLxByN26ig7eEQGun6kGJEW5T6kYaHbzkJOT0Gu4oqr97kD1PKu
ciALZaCBtDGF5lmu0Cob9eJk6kR34f1UQcT0hqZzkvefr1+tu+BVf6gljltoYE1/
nQIDAQAB
-----END PUBLIC KEY-----
"""
"""Nobody has its other half."""
