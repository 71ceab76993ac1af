"""The source dies and a replica takes over, within one run and between two; unsuitable replicas are told from those that only lag."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from cdc import changes
from cdc.config import SourceUrl
from cdc.demo import shop
from cdc.errors import PositionLost, Temporary, TornTransaction
from cdc.model import Boundary, Chunk, ChunkRequest, Delivery, Item, Position, SourceChanged, TableProgress, TableState
from cdc.mysql import failover, preflight
from cdc.mysql.source import MySqlSource
from tests.fix_migration import PATIENCE, Project
from tests.fix_proxy import Proxy
from tests.fix_replicas import Pair

pytestmark = pytest.mark.waits

FLAVORS = ("mysql", "mariadb")


@pytest.fixture(params=FLAVORS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """A source and its replica, as new."""
    made: Pair = request.getfixturevalue(f"{request.param}_servers")
    made.renew()
    return made


@pytest.fixture
def first(pair: Pair, tmp_path) -> Iterator[Project]:
    """The table on the source."""
    with pair.project(pair.first, tmp_path / "state") as made:
        yield made


@pytest.fixture
def second(pair: Pair, tmp_path) -> Iterator[Project]:
    """The same table on the replica; the state folder is that of `first`."""
    with pair.project(pair.second, tmp_path / "state") as made:
        yield made


def status(project: Project) -> dict[str, object]:
    """The output of `cdc status` for the last checkpoint."""
    return json.loads(project.cdc("status", f"mapstore:{project.state}", "--json").stdout)


def wait_until(reached: Callable[[], bool]) -> None:
    for _ in range(PATIENCE * 20):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError("it has not come that far")


def test_replica_takes_over_during_a_copy(pair: Pair, first: Project, second: Project):
    """The source is killed with chunks in flight; the copy continues on the replica, under writes before and after, and is exact."""
    shop.load(first.admin, first.table, 20_000)
    process = first.start_held("--chunk-rows", "100")
    with shop.Writer(first.source, first.table, per_second=100):
        copying = first.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > 0)
        process.send_signal(signal.SIGSTOP)
    assert copying.tables[0].state is TableState.COPYING
    pair.wait_in_sync()
    pair.first.kill()
    pair.promote(pair.second)
    with shop.Writer(second.source, second.table, per_second=100):
        process.send_signal(signal.SIGCONT)
        second.let_go(process)
        second.wait_streaming(process)
    checkpoint = second.wait_applied(process)
    report, _ = second.end(process)
    assert report["takeovers"] == 1
    assert report["source"] == f"{pair.second.host}:{pair.second.port}"
    assert len(set(checkpoint.servers)) == 2
    second.assert_identical()


def test_next_run_starts_on_the_replica_when_the_source_is_down(pair: Pair, first: Project, second: Project):
    """It continues from the checkpoint without copying again, and `cdc status` and `cdc dump` need no source."""
    shop.load(first.admin, first.table, 1_000)
    first.migrate()
    pair.wait_in_sync()
    pair.first.kill()
    pair.promote(pair.second)
    second.sql("DELETE FROM t WHERE id <= 10", "UPDATE t SET note = 'later' WHERE id <= 20")
    assert len(second.cdc("dump", f"mapstore:{second.state}", str(second.table)).stdout.splitlines()) == 1_000
    report = second.migrate()
    assert (report["strategy"], report["rows_copied"], report["rows_streamed"]) == ("incremental", 0, 20)
    assert second.assert_identical() == 990
    assert second.cdc("verify", second.url, f"mapstore:{second.state}").returncode == 0


def test_lagging_replica_is_waited_for(pair: Pair, first: Project, second: Project):
    """A replica that lacks applied transactions is not used until it has them; the status says so meanwhile."""
    shop.load(first.admin, first.table, 500)
    pair.wait_in_sync()
    process = first.start()
    first.wait_streaming(process)
    pair.pause(pair.second)
    first.sql("UPDATE t SET note = 'not yet applied there' WHERE id <= 50")
    end = first.wait_applied(process).position.gtids
    pair.wait_received()
    pair.first.kill()
    wait_until(lambda: "it is a replica that is behind" in str(status(first)["last_run"]))
    assert status(first)["position"] == str(end)
    pair.resume(pair.second)
    pair.wait_for(pair.second, end)
    pair.promote(pair.second)
    second.sql("UPDATE t SET note = 'then' WHERE id <= 20")
    second.wait_applied(process)
    report, _ = second.end(process)
    assert report["takeovers"] == 1
    second.assert_identical()


def test_transaction_lost_in_failover_is_rolled_back(pair: Pair, first: Project, second: Project, proxy):
    """Parts of a transaction that no replica has are undone by going back to the last checkpoint; an iteration over changes that already
    gave some raises an error.
    """
    shop.load(first.admin, first.table, 2_000)
    pair.wait_in_sync()
    faulty: Proxy = proxy(pair.first.host, pair.first.port)
    first.url = pair.url_of(("127.0.0.1", faulty.port), (pair.second.host, pair.second.port))
    process = first.start()
    first.wait_streaming(process)
    pair.sql(pair.second, pair.stop_receiving)
    faulty.cut_after = itertools.repeat(8 << 20)
    faulty.cut()
    with changes(first.url, [first.table]) as seen:
        before = seen.position
        first.sql("UPDATE t SET note = REPEAT('x', 9000)")
        assert next(seen).op == "update"
        wait_until(lambda: faulty.cuts > 1)
        faulty.refusing = True
        faulty.cut()
        pair.first.kill()
        with pytest.raises(TornTransaction, match="in the middle of a transaction"):
            list(seen)
        assert seen.position.gtids == before.gtids
    pair.promote(pair.second)
    second.sql("UPDATE t SET note = 'after' WHERE id <= 20")
    second.wait_applied(process)
    _, err = second.end(process)
    assert err.count("back to the last checkpoint") == 1
    second.assert_identical()


@pytest.mark.parametrize("pair", ["mysql"], indirect=True)
def test_address_that_moves_to_a_replica_is_followed(pair: Pair, first: Project, second: Project, proxy):
    """One host in the URL, like a DNS name or virtual address, that leads to the replica after a promotion."""
    shop.load(first.admin, first.table, 5_000)
    pair.wait_in_sync()
    address: Proxy = proxy(pair.first.host, pair.first.port)
    first.url = pair.url_of(("127.0.0.1", address.port))
    process = first.start("--chunk-rows", "50")
    first.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > 0)
    address.lead_to(pair.second.host, pair.second.port)
    address.cut()
    pair.promote(pair.second)
    second.sql("UPDATE t SET note = 'there' WHERE id <= 20")
    second.wait_streaming(process)
    second.wait_applied(process)
    report, _ = second.end(process)
    assert report["takeovers"] == 1
    second.assert_identical()


def test_address_that_moves_to_an_unrelated_server_exits_4(pair: Pair, first: Project, proxy):
    """Nothing of a server with another history is applied when it appears during a run."""
    pair.promote(pair.second)
    pair.forget(pair.second)
    first.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    address: Proxy = proxy(pair.first.host, pair.first.port)
    first.url = pair.url_of(("127.0.0.1", address.port))
    process = first.start()
    first.wait_streaming(process)
    address.lead_to(pair.second.host, pair.second.port)
    address.cut()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    assert "This is another server" in err
    assert first.assert_identical() == 1


@pytest.mark.parametrize("pair", ["mysql"], indirect=True)
def test_replica_with_purged_binlogs_is_skipped(pair: Pair, first: Project):
    """The error is temporary (75) while the source may return, and the position is lost (4) once no server has the binlogs."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    first.migrate()
    first.sql("INSERT INTO t VALUES (2, 2)", "INSERT INTO t VALUES (3, 3)")
    pair.wait_in_sync()
    pair.purge(pair.second)
    pair.first.kill()
    text = first.refused(expect=75)
    assert f"127.0.0.1:{pair.first.port}: No MySQL server answers" in text
    assert f"127.0.0.1:{pair.second.port}: The source has purged" in text
    pair.first.restart()
    pair.purge(pair.first)
    text = first.refused(expect=4)
    assert text.count("has purged") == 2
    assert "--strategy full" in text


def test_source_that_lost_transactions_exits_4(pair: Pair, first: Project):
    """The server has the same UUID and fewer transactions than it once sent, as after a restore or a lost write."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY)", *(f"INSERT INTO t VALUES ({number})" for number in range(5)))
    first.migrate()
    pair.forget(pair.first)
    first.url = pair.url_of((pair.first.host, pair.first.port))
    assert "has lost transactions" in first.refused(expect=4)


@pytest.mark.parametrize("pair", ["mysql"], indirect=True)
def test_replica_that_never_catches_up_exits_4(pair: Pair, first: Project, monkeypatch: pytest.MonkeyPatch):
    """The wait for missing transactions has a bound, because they may have died with the source."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    pair.wait_in_sync()
    pair.sql(pair.second, pair.stop_receiving)
    first.sql("INSERT INTO t VALUES (1, 1)")
    asked = failover.Failover(SourceUrl.parse(pair.url_of((pair.second.host, pair.second.port)), {}), lambda _: None)
    wanted = failover.Requirement(Position(first.gtids()))
    with pytest.raises(Temporary, match="replica that is behind"):
        asked.choose(wanted)
    assert asked.behind
    monkeypatch.setattr(failover, "BEHIND_SECONDS", 0.0)
    with pytest.raises(PositionLost, match="has not caught up within") as found:
        asked.choose(wanted)
    assert "--strategy full" in found.value.hint
    assert not asked.behind


def test_changes_come_once_across_a_failover(pair: Pair, first: Project, second: Project):
    """An iteration over changes that began on the source continues with what the replica has written since."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    pair.wait_in_sync()
    with changes(first.url, [first.table]) as seen:
        first.sql("INSERT INTO t VALUES (1), (2)", "INSERT INTO t VALUES (3)")
        ids = [next(seen).after for _ in range(2)]
        pair.wait_in_sync()
        pair.first.kill()
        pair.promote(pair.second)
        second.sql("INSERT INTO t VALUES (4)")
        ids += [next(seen).after for _ in range(2)]
    assert ids == [{"id": number} for number in (1, 2, 3, 4)]


def test_check_covers_every_host(pair: Pair, first: Project):
    """`cdc check` with several hosts reports on each under its address."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    pair.wait_in_sync()
    lines = first.cdc("check", first.url, "--tables", str(first.table)).stdout.splitlines()
    assert lines
    for server in (pair.first, pair.second):
        assert sum(f"{server.host}:{server.port}: " in line for line in lines) == len(lines) // 2


def test_rewind_while_the_server_is_down_continues_on_the_replica(pair: Pair, first: Project):
    """The source starts again from a position whose file and offset are the dead server's; it continues by GTID on the replica."""
    first.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    pair.wait_in_sync()
    with MySqlSource(SourceUrl.parse(pair.url, {}), heartbeat_seconds=1.0, give_up_seconds=PATIENCE, examine=preflight.examine) as source:
        start = source.position()
        (table,) = source.tables([first.table])
        progress = [TableProgress(table, state=TableState.STREAMING)]
        source.start(start, progress)
        seen: list[Item | None] = []
        first.sql("INSERT INTO t VALUES (2)")
        wait_until(lambda: _rows(seen, source) == 1)
        checkpoint = next(item.position for item in seen if isinstance(item, Delivery) and item.batches)
        assert checkpoint
        first.sql("INSERT INTO t VALUES (3)")
        pair.wait_in_sync()
        assert checkpoint.file
        pair.first.kill()
        pair.promote(pair.second)
        told = source.start(checkpoint, progress)
        assert told
        assert told.position == Position(checkpoint.gtids)
        source.request(ChunkRequest(table, None, 10, told.position))  # void with the SourceChanged that is waiting
        again: list[Item | None] = []
        wait_until(lambda: _rows(again, source) == 1)
        assert not any(isinstance(item, (Boundary, Chunk)) for item in again)
        assert next(type(item) for item in again if item) is SourceChanged
        assert source.url.port == pair.second.port


def _rows(items: list[Item | None], source: MySqlSource) -> int:
    """Take what has come; the number of changed rows so far."""
    items.append(source.next(0.0))
    return sum(len(batch.keys) for item in items if isinstance(item, Delivery) for batch in item.batches)
