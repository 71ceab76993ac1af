"""A network that cuts and stalls: the migration goes on by itself, and nothing is lost or doubled."""

import random
import time

import pytest

from cdc import shop
from tests.fix_migration import Project
from tests.fix_proxy import Proxy


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, 3_000)
    return project


@pytest.fixture
def faulty(orders: Project, proxy) -> Proxy:
    """A proxy between the migration and the source; the test's own connections go around it."""
    made = proxy(orders.source.host, orders.source.port)
    orders.url = f"mysql://{orders.source.user}:{orders.source.password}@127.0.0.1:{made.port}/"
    return made


def test_connections_cut_anywhere_are_opened_again_and_nothing_is_lost_or_doubled(orders: Project, faulty: Proxy):
    """Every connection after the first is cut after a random number of bytes: in the handshake, a chunk, an event, between them."""
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
    end = orders.gtids()
    orders.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    orders.end(process)
    orders.assert_identical()


def test_a_stalled_connection_is_noticed_by_its_missing_heartbeats(orders: Project, faulty: Proxy):
    """Half-open: nothing comes and nothing ends. The watchdog gives it up, and the stream goes on over a new one."""
    process = orders.start()
    orders.wait_streaming(process)
    faulty.stalled = True
    orders.sql("UPDATE t SET note = 'while stalled' WHERE id < 100")
    time.sleep(6)
    stalled = list(faulty._pairs)
    faulty.stalled = False
    for pair in stalled:  # what was stalled never comes back
        faulty._end(pair)
    end = orders.gtids()
    orders.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    orders.end(process)
    orders.assert_identical()


def test_a_source_that_is_away_is_waited_for_and_the_progress_says_so(orders: Project, faulty: Proxy):
    """The state stays readable meanwhile; when the source is back the stream goes on."""
    process = orders.start()
    orders.wait_streaming(process)
    faulty.refusing = True
    faulty.cut()
    orders.sql("UPDATE t SET note = 'while away' WHERE id < 100")
    time.sleep(3)
    assert process.poll() is None
    assert '"rows_copied": 3000' in orders.cdc("status", f"mapstore:{orders.state}", "--json").stdout
    faulty.refusing = False
    end = orders.gtids()
    orders.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    _, err = orders.end(process)
    assert "waiting: The connection to" in err
    orders.assert_identical()
