"""A server that answers with damaged, misplaced and made-up packets: each conversation ends well or in one sentence without a traceback.

Real conversations with MySQL and MariaDB are recorded first, then replayed with damage. CDC_HOSTILE_CONVERSATIONS sets how many are
replayed (`make fuzz`); CDC_HOSTILE_SEED repeats those of a failed run, which prints its seed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cdc import api
from cdc.config import Config, SourceUrl, Tls, TlsMode
from cdc.errors import CdcError
from cdc.model import ChunkRequest, Position, Table, TableId
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import read_table
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import SnapshotReader
from cdc.ops.console import printable
from cdc.sandbox import Sandbox
from tests.damage import CONTROLS, DAMAGES, Burst, Damaged, DamagingProxy, headed, recording
from tests.fake_server import EOF, OK, SECRET, Conversation, error, fake_server, handshake
from tests.fix_migration import Project
from tests.fix_servers import fresh_database

pytestmark = pytest.mark.waits

CONVERSATIONS = int(os.environ.get("CDC_HOSTILE_CONVERSATIONS", "500"))
LONGEST_SENTENCE = 2_000
"""Characters; a server may send 16 MB."""


@dataclass(frozen=True)
class Recorded:
    """The client's part and the server's packets of one conversation."""

    name: str
    run: Callable[[SourceUrl], None]
    bursts: list[Burst]


def clients(table: Table, position: Position) -> dict[str, Callable[[SourceUrl], None]]:
    """What a migration does over each of its connections."""

    def preflight(url: SourceUrl) -> None:
        api.check(url, [table.id])

    def chunk(url: SourceUrl) -> None:
        reader = SnapshotReader(url)
        request = ChunkRequest(table, None, 10, position)
        try:
            reader.read(request, reader.boundary(request))
            reader.log_end()
        finally:
            reader.abandon()

    def stream(url: SourceUrl) -> None:
        reader = BinlogReader(url, position, [table], heartbeat_seconds=1.0)
        try:
            for delivery in reader:
                if delivery.transactions:
                    break
        finally:
            reader.abandon()

    def read(url: SourceUrl) -> None:
        connection = connect(url)
        try:
            with explained(url):
                read_table(connection, table.id)
        finally:
            connection.abandon()

    return {each.__name__: each for each in (preflight, chunk, stream, read)}


@pytest.fixture(scope="module")
def recorded(mysql_server: Sandbox, mariadb_server: Sandbox) -> list[Recorded]:
    """Each client's conversation with each server, without TLS and with a login that takes all of its steps."""
    found = []
    for server in (mysql_server, mariadb_server):
        source = replace(SourceUrl.parse(server.url, {}), tls=Tls(TlsMode.DISABLED, get_public_key=True))
        with fresh_database(server) as database, closing(connect(SourceUrl.parse(server.url, {}))) as admin:
            admin.select_db(database)
            admin.rows("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20), d DECIMAL(9, 2), j JSON)")
            position = flavor_of(admin).position(admin)
            admin.rows("INSERT INTO t SELECT seq, 'x', 1.5, '{\"a\": 1}' FROM (SELECT 1 AS seq UNION SELECT 2 UNION SELECT 3) AS numbers")
            table = read_table(admin, TableId(database, "t"))
            for name, run in clients(table, position).items():
                admin.rows("FLUSH PRIVILEGES")
                with recording(server.host, server.port) as (port, connections):
                    run(replace(source, host="127.0.0.1", port=port))
                found += [Recorded(f"{server.flavor} {name}", run, bursts) for bursts in connections]
                assert len(connections) == 1
    return found


def talk(recorded: Recorded, script: Callable[[Conversation], object]) -> CdcError | None:
    """How a client's conversation with a server that replays the script ends."""
    with fake_server(script) as server:
        url = replace(SourceUrl.parse(server.url, {}), tls=Tls(TlsMode.DISABLED, get_public_key=True))
        try:
            recorded.run(url)
        except CdcError as error:
            return error
    return None


def test_undamaged_conversations_end_well(recorded: list[Recorded]) -> None:
    """The replay itself works, so that failures of the other test come from the damage."""
    for conversation in recorded:
        script = Damaged(conversation.bursts, random.Random(1))
        script.bursts, script.at = conversation.bursts, len(conversation.bursts)
        assert talk(conversation, script) is None, conversation.name


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"\xfb/etc/passwd", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"\xfe" + b"\xff" * 8, "the connection ended|was lost"),
        (error(1105, CONTROLS), "answered with error 1105"),
        (error(1105, "x" * 70_000), "answered with error 1105: x{500}…"),
    ],
    ids=["LOCAL INFILE", "empty", "an error that is cut", "2^64 columns", "controls", "a long error"],
)
def test_unexpected_answer_is_one_sentence(recorded: list[Recorded], packet: bytes, words: str) -> None:
    """In place of the first result, for each client; a request for a local file is refused."""
    for conversation in recorded:
        script = Damaged(conversation.bursts, random.Random(1))
        script.at = next(number for number, burst in enumerate(conversation.bursts) if burst[1:] and number > 1)
        script.bursts = list(conversation.bursts)
        script.bursts[script.at] = [headed(packet, 1)]
        with fake_server(script) as server:
            url = replace(SourceUrl.parse(server.url, {}), tls=Tls(TlsMode.DISABLED, get_public_key=True))
            with pytest.raises(CdcError, match=words):
                conversation.run(url)
            assert not any(b"root:" in packet for packet in server.received)


def test_protocol_version_9_is_refused_in_one_sentence() -> None:
    """Servers before 1998 would get the password as a weak hash."""
    for first in (b"\x09" + b"3.23.58\0" + bytes(4) + b"12345678\0", b"\x09" + handshake("mysql_native_password")[1:]):
        with fake_server(lambda talk, first=first: talk.send(first)) as server, pytest.raises(CdcError, match="cannot be read"):
            connect(SourceUrl.parse(server.url, {}))


def test_endless_answer_is_cut_off() -> None:
    """Answers are held in memory whole, so their size has a bound."""

    def script(talk: Conversation) -> None:
        talk.send(handshake("mysql_native_password"))
        for _login_and_character_set in range(2):
            talk.receive()
            talk.send(OK)
        talk.receive()
        talk.send(b"\x01", b"\x03def\0\0\0\x01a\0\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0", EOF)
        row = b"\xfd" + (1 << 20).to_bytes(3, "little") + bytes(1 << 20)
        while True:
            talk.send(row)

    with fake_server(script) as server, pytest.raises(CdcError, match="longer than 64 MiB"):
        connect(SourceUrl.parse(server.url, {}))


def test_hostile_server_is_refused_in_one_sentence(recorded: list[Recorded]) -> None:
    """Random packets cause no traceback, no terminal control, no password in the output and no endless wait."""
    seed = int(os.environ.get("CDC_HOSTILE_SEED", random.randrange(1 << 32)))
    print(f"CDC_HOSTILE_SEED={seed}")
    rng = random.Random(seed)
    drawn: Counter[str] = Counter()
    sentences: Counter[str] = Counter()
    for number in range(CONVERSATIONS):
        each = rng.choice(recorded)
        script = Damaged(each.bursts, rng)
        began = time.monotonic()
        try:
            ended = talk(each, script)
        except BaseException as failure:
            failure.add_note(
                f"conversation {number} of seed {seed}: {each.name}, {script.what} in burst {script.at}: {script.bursts[script.at]!r:.500}"
            )
            raise
        drawn[script.what] += 1
        if ended:
            sentence = str(ended)
            assert ended.message.endswith("."), sentence
            assert len(sentence) <= LONGEST_SENTENCE, sentence[:LONGEST_SENTENCE]
            assert "\ncdc: identical" not in printable(sentence)
            assert SECRET not in sentence
            sentences[type(ended).__name__ + ": " + " ".join(ended.message.partition("/ ")[2].split()[:6])] += 1
        assert time.monotonic() - began < 60, (each.name, script.what, script.at)
    for sentence, count in sentences.most_common():
        print(f"{count:6,}  {printable(sentence)}")
    print(f"{CONVERSATIONS - sentences.total():6,}  ended well")
    assert set(drawn) == set(DAMAGES) or CONVERSATIONS < 100


def test_damaged_packet_is_survived_or_ends_in_one_sentence(project_on_either: Project, tmp_path: Path) -> None:
    """Whole migrations through a proxy that damages one packet of each, in preflight, in chunks or in the stream."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    source = replace(SourceUrl.parse(project.url, {}), tls=Tls(TlsMode.DISABLED, get_public_key=True))
    seed = int(os.environ.get("CDC_HOSTILE_SEED", random.randrange(1 << 32)))
    print(f"CDC_HOSTILE_SEED={seed}")
    rng = random.Random(seed)

    def migrated(at: int, state: Path) -> DamagingProxy:
        with DamagingProxy(source.host, source.port, rng, at) as proxy:
            url = replace(source, host="127.0.0.1", port=proxy.port)
            config = Config(url, state, (project.table,), until_caught_up=True, heartbeat_seconds=0.2)
            try:
                api.migrate(config)
            except CdcError as error:
                assert len(str(error)) <= LONGEST_SENTENCE
            except BaseException as failure:
                failure.add_note(f"seed {seed}: {proxy.what} of packet {at}")
                raise
        return proxy

    packets = migrated(0, tmp_path / "undamaged").passed
    for number in range(max(4, CONVERSATIONS // 100)):
        migrated(rng.randrange(1, packets), tmp_path / str(number))
