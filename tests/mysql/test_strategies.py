"""Full, incremental and auto on a real server: what each does with an existing state, and the reasons that auto gives."""

import json

import pytest

from tests.fix_migration import Project
from tests.states import read_copy_under_way, read_state

ROWS = 20_000


@pytest.fixture
def wide(project: Project) -> Project:
    """20 MB of rows: enough to measure the rate of a copy."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, pad VARCHAR(1000) NOT NULL)",
        f"SET SESSION cte_max_recursion_depth = {ROWS}",
        f"INSERT INTO t WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
        " SELECT i, 0, REPEAT('x', 1000) FROM n",
    )
    return project


def test_auto_follows_a_short_binlog_and_copies_for_a_long_one(wide: Project):
    """The reason has both estimates, the measured rates are in the checkpoint, and the result equals the source."""
    wide.migrate()
    rates = read_state(wide.state)[0].rates
    assert rates.copy_rows > 0
    assert rates.copy_bytes > 1000 * rates.copy_rows
    assert rates.stream_bytes == 0
    wide.sql("UPDATE t SET v = v + 1 WHERE id <= 50")
    little = wide.migrate()
    assert little["strategy"] == "incremental"
    assert "bytes of binlog since the checkpoint take about" in little["reason"]
    assert little["rows_copied"] == 0
    for _ in range(3):
        wide.sql("UPDATE t SET v = v + 1")  # twice 20 MB each: before and after
    much = wide.migrate()
    assert much["strategy"] == "full"
    assert "a copy is clearly faster" in much["reason"]
    assert (much["rows_copied"], much["rows_streamed"]) == (ROWS, 0)
    assert read_copy_under_way(wide.state) is None
    wide.assert_identical()


def test_incremental_follows_any_amount_and_measures_its_rate(wide: Project):
    """It never becomes a copy; the next run uses the rate."""
    wide.migrate()
    wide.sql("UPDATE t SET v = v + 1")
    report = wide.migrate("--strategy", "incremental")
    assert (report["rows_copied"], report["rows_streamed"]) == (0, ROWS)
    rates = read_state(wide.state)[0].rates
    assert rates.stream_bytes > 2000 * rates.stream_rows > 0
    wide.assert_identical()


def test_incremental_without_a_checkpoint_is_refused(wide: Project):
    """The attempt leaves no files."""
    assert "no checkpoint to start from" in wide.refused("--strategy", "incremental", expect=2)
    assert "--strategy full" in wide.refused("--strategy", "incremental", expect=2)


def test_old_copy_is_readable_while_a_new_one_is_made(wide: Project):
    """`cdc dump` gives the old rows, `cdc status` says what is under way, `cdc verify` compares the old copy."""
    wide.migrate()
    wide.sql("DELETE FROM t WHERE id > 19000")
    state = f"mapstore:{wide.state}"
    killed = wide.cdc(
        *wide.arguments("--strategy", "full", "--checkpoint-seconds", "0", "--chunk-rows", "1000"), crash_at="after-checkpoint:6"
    )
    assert killed.returncode < 0, killed.stderr
    status = json.loads(wide.cdc("status", state, "--json").stdout)
    assert status["tables"][str(wide.table)] == {"state": "streaming", "rows_copied": ROWS, "rows_held": ROWS, "rows_counted": True}
    assert status["copy_under_way"][str(wide.table)]["state"] == "copying"
    assert "a new copy of" in wide.cdc("status", state).stdout
    assert len(wide.cdc("dump", state, str(wide.table)).stdout.splitlines()) == ROWS
    assert wide.cdc("verify", wide.url, state).returncode == 0
    under_way = read_copy_under_way(wide.state)
    assert under_way
    assert wide.migrate()["rows_copied"] == 19_000 - under_way.tables[0].rows_copied
    assert wide.assert_identical() == 19_000
