"""A network that cuts and stalls: the migration continues by itself, without lost or doubled rows."""

import itertools
import random
import signal
import subprocess
import sys
import time

import pytest

from cdc.config import SourceUrl
from cdc.demo import shop
from cdc.errors import Temporary
from cdc.model import ChunkRequest, Position
from cdc.mysql import connection, snapshot
from cdc.mysql.binlog import SILENCE, BinlogReader
from cdc.mysql.schema import read_table
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import SnapshotReader
from tests.fix_migration import PATIENCE, Project
from tests.fix_proxy import Proxy

pytestmark = pytest.mark.waits


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, 3_000)
    return project


@pytest.fixture
def faulty(orders: Project, proxy) -> Proxy:
    """A proxy between the migration and the source; the test's own connections bypass it."""
    made = proxy(orders.source.host, orders.source.port)
    orders.url = f"mysql://{orders.source.user}:{orders.source.password}@127.0.0.1:{made.port}/"
    return made


def test_connections_cut_anywhere_are_reopened(orders: Project, faulty: Proxy):
    """Every connection after the first is cut after a random number of bytes: in the handshake, in a chunk, in or between events."""
    rng = random.Random(3)
    with shop.Writer(orders.source, orders.table, per_second=60):
        process = orders.start("--chunk-rows", "300")
        orders.wait(process, lambda _: True)
        faulty.cut_after = iter([int(10 ** rng.uniform(0, 5)) for _ in range(12)])
        faulty.cut()
        orders.wait_streaming(process)
        while faulty.cuts <= 6:  # how many places the copy itself came to is a matter of its speed
            faulty.cut()
            time.sleep(1)
    orders.wait_applied(process)
    orders.end(process)
    orders.assert_identical()


def test_silent_stream_is_detected_by_missing_heartbeats(orders: Project, faulty: Proxy):
    """A half-open stream is replaced by a new connection."""
    process = orders.start()
    orders.wait_streaming(process)
    faulty.swallow()
    orders.sql("UPDATE t SET note = 'while silent' WHERE id < 100")
    orders.wait_applied(process)
    orders.end(process)
    orders.assert_identical()


def test_chunk_on_a_silent_connection_is_read_again(orders: Project, faulty: Proxy):
    """Reading a chunk may be silent for minutes, so the stream's heartbeats detect a dead link for both."""
    process = orders.start("--chunk-rows", "50", "--max-rows-per-second", "100")
    before = orders.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > 0).tables[0].rows_copied
    faulty.swallow()
    orders.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > before + 500)  # more than can have been under way
    orders.end(process)


def test_trickling_stream_is_detected(orders: Project, faulty: Proxy):
    """Single bytes do not count as life: a whole event or heartbeat has to arrive in time."""
    process = orders.start()
    orders.wait_streaming(process)
    faulty.slow_down(1, 1.5)
    orders.sql("UPDATE t SET note = 'while it trickles' WHERE id < 100")
    orders.wait_applied(process)
    report, _ = orders.end(process)
    assert report["reconnects"] >= 1  # a busy machine may be silent for as long once more; a short wait is not told
    orders.assert_identical()


def test_slow_network_is_tolerated(orders: Project, faulty: Proxy):
    """A chunk, and an event that takes longer than the silence bound, arrive over a link of 200 kB/s."""
    faulty.slow_from_the_start = (4_000, 0.02)
    orders.sql("ALTER TABLE t ADD COLUMN long_text LONGTEXT", "UPDATE t SET long_text = REPEAT('c', 500000) WHERE id < 3")
    process = orders.start()
    orders.wait_streaming(process)
    orders.sql("UPDATE t SET long_text = REPEAT('s', 600000) WHERE id < 2")
    orders.wait_applied(process)
    report, err = orders.end(process)
    assert (report["reconnects"], "waiting" in err) == (0, False)
    orders.assert_identical()


def test_trickling_answer_times_out_and_slow_answer_does_not(orders: Project, faulty: Proxy, monkeypatch: pytest.MonkeyPatch):
    """For the greeting, a query of preflight and a chunk."""
    url = SourceUrl.parse(orders.url + "?ssl-mode=disabled&get-server-public-key=true", {})
    orders.sql("UPDATE t SET note = REPEAT('x', 100)")
    table = read_table(orders.admin, orders.table)
    request = ChunkRequest(table, None, 3_000, Position(orders.gtids()))
    monkeypatch.setattr(snapshot, "READ_TIMEOUT", 2.0)
    reader, asking = SnapshotReader(url), connection.connect(url, read_timeout=2.0)
    reader.log_end()
    faulty.slow_down(10_000, 0.1)
    assert len(reader.read(request, None).keys) == 3_000  # 450 kB: four seconds
    assert len(asking.rows(f"SELECT note FROM {orders.database}.t")) == 3_000
    faulty.slow_down(1, 0.2)
    with pytest.raises(Temporary, match="timed out"):
        reader.read(request, None)
    with pytest.raises(Temporary, match="timed out"), explained(url):
        asking.rows(f"SELECT note FROM {orders.database}.t")
    reader.abandon()
    asking.abandon()
    faulty.slow_from_the_start = (1, 0.2)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1.0)
    with pytest.raises(Temporary, match="timed out"):
        connection.connect(url)


@pytest.mark.parametrize("tls", [False, True])
def test_packet_damaged_once_is_requested_again(orders: Project, faulty: Proxy, tls: bool):
    """In the stream, in rows and over TLS, the run continues from its position over a new connection."""
    if not tls:
        orders.url += "?ssl-mode=disabled&get-server-public-key=true"  # so that the proxy sees packets
    process = orders.start()
    orders.wait_streaming(process)
    for number, (at, bit) in enumerate([(2, 1), (3, 8), (10, 1), (-1, 16), (30, 4)], 1):
        left = [at]

        def damaged(data: bytes, bit: int = bit, left: list[int] = left) -> bytes:
            if not left or len(data) < 200:
                return data
            place = left.pop() % len(data)
            return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

        faulty.damage = damaged
        orders.sql(f"UPDATE t SET note = 'damaged {number}' WHERE id < 100")
        orders.wait_applied(process)
        assert not left
    report, err = orders.end(process)
    assert report["reconnects"] == 5, err
    orders.assert_identical()


@pytest.mark.parametrize(("at", "words"), [(2, "does not have the length"), (3, "came in a packet out of order")])
def test_damaged_packet_length_is_detected_despite_heartbeats(orders: Project, faulty: Proxy, at: int, words: str):
    """A length a megabyte too large must not swallow heartbeats for ever; the same damage at the same place ends the run, and the next run
    continues without skipping.
    """
    orders.url += "?ssl-mode=disabled&get-server-public-key=true"  # so that the proxy sees packets
    process = orders.start()
    orders.wait_streaming(process)

    def damaged(data: bytes) -> bytes:
        heartbeat = len(data) > 20 and data[4] == 0 and data[9] in (27, 41)
        return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :] if heartbeat else data

    faulty.damage = damaged
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert words in err
    faulty.damage = bytes
    orders.sql("UPDATE t SET note = 'after damage' WHERE id < 100")
    orders.migrate()
    orders.assert_identical()


def test_absent_source_is_waited_for_and_state_stays_readable(orders: Project, faulty: Proxy):
    """The state stays at its last position, the lag keeps counting, and the stream continues once the source is back."""
    process = orders.start()
    before = orders.wait_streaming(process).position.gtids
    faulty.refusing = True
    faulty.cut()
    orders.sql("UPDATE t SET note = 'while away' WHERE id < 100")
    away = orders.wait(process, lambda checkpoint: str(checkpoint.report["waiting"]) != "")
    later = orders.wait(
        process, lambda checkpoint: float(str(checkpoint.report["lag_now_ms"])) > float(str(away.report["lag_now_ms"])) + 1000
    )
    assert later.position.gtids == before
    assert '"rows_copied": 3000' in orders.cdc("status", f"mapstore:{orders.state}", "--json").stdout
    rows = orders.cdc("dump", f"mapstore:{orders.state}", str(orders.table)).stdout
    assert len(rows.splitlines()) == 3_000
    assert "while away" not in rows
    faulty.refusing = False
    orders.wait_applied(process)
    report, err = orders.end(process)
    assert "waiting: " in err
    assert (report["waiting"], report["takeovers"]) == ("", 0)
    orders.assert_identical()


def test_source_searching_its_binlogs_is_waited_for(orders: Project, faulty: Proxy):
    """MariaDB sends no heartbeats while it searches for the position; afterwards missing heartbeats count again."""
    url = SourceUrl.parse(orders.url + "?ssl-mode=disabled&get-server-public-key=true", {})
    heartbeat = 1.0  # less, and a busy machine would be silent for longer

    def searching(data: bytes) -> bytes:
        if len(data) > 20 and data[4] == 0 and data[9] == 4:  # the ROTATE that names the file
            time.sleep(1.5 * SILENCE * heartbeat)
        return data

    faulty.damage = searching
    position = Position(orders.gtids())
    orders.sql("UPDATE t SET note = 'later' WHERE id < 10")
    with pytest.raises(Temporary, match="timed out"):
        for delivery in BinlogReader(url, position, [read_table(orders.admin, orders.table)], heartbeat_seconds=heartbeat):
            if delivery.batches:
                faulty.swallow()
    assert delivery.position
    assert delivery.position.gtids == orders.gtids()


ENDLESS = """
import sys
from pathlib import Path
from cdc.ops import interrupts
from cdc.__main__ import main
from cdc.config import SourceUrl
from cdc.mysql import connection, source, stream_loop
connection.CONNECT_SECONDS = source.LOG_END_SECONDS = stream_loop.LONGEST_PAUSE = 3600.0
"""
"""The bounds of these waits are no help here: what ends within the test's patience is ended by the signal."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_wait_for_an_answer(orders: Project, faulty: Proxy, number: signal.Signals):
    """The main thread queries a server that has fallen silent."""
    program = ENDLESS + (
        "with source.MySqlSource(SourceUrl.parse(sys.argv[1], {}), heartbeat_seconds=1.0) as opened:\n"
        "    with interrupts.stopped_by_signals(lambda: None) as asked:\n"
        "        assert opened.log_end()\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.readline()\n"
        "        print('asking', flush=True)\n"
        "        print(opened.log_end(), opened.log_end(), asked.name)\n"
    )
    command = [sys.executable, "-c", program, orders.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            faulty.swallow()
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "asking\n"
            process.send_signal(number)
            assert process.communicate(timeout=PATIENCE)[0] == f"None None {number.name}\n"
        finally:
            process.kill()
    assert process.returncode == 0


def test_signal_ends_a_run_whose_source_is_silent(orders: Project, faulty: Proxy):
    """While the stream reconnects to a server that never answers; the last checkpoint is saved."""
    command = [sys.executable, "-c", f"{ENDLESS}main()", *orders.arguments("--json", "--checkpoint-seconds", "0.2")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            orders.wait_streaming(process)

            def nothing(data: bytes) -> bytes:
                faulty.swallow()
                return data

            faulty.damage = nothing
            faulty.cut()
            orders.wait(process, lambda checkpoint: checkpoint.report["waiting"] != "")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "The last checkpoint is saved" in err


@pytest.mark.parametrize("silent_from", [1, 2, 3])
def test_unfinished_connection_times_out(orders: Project, faulty: Proxy, monkeypatch: pytest.MonkeyPatch, silent_from: int):
    """Silence before the greeting, in the TLS handshake and in the login."""
    came = itertools.count(1)

    def silence(data: bytes) -> bytes:
        if next(came) == silent_from:
            faulty.swallow()
        return data

    faulty.damage = silence
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1.0)
    with pytest.raises(Temporary, match=r"No MySQL server answers .*timed out"):
        connection.connect(SourceUrl.parse(orders.url, {}))
