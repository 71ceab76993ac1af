"""The target that docs/targets.md has, with a real source: copied under writes, continued, verified, replaced by a new copy."""

from __future__ import annotations

from contextlib import closing

import pytest

import cdc
from cdc.config import Config, Strategy, TargetUrl
from cdc.demo import shop
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import read_all
from cdc.ops import summary
from cdc.targets import open_reader, open_target
from tests.fix_migration import Project, changed_in_all_ways, eventually
from tests.targets.kinds import load_documented_target

load_documented_target()


@pytest.fixture
def url(project: Project) -> TargetUrl:
    return TargetUrl.parse(f"rowsfile:{project.state}")


def migrate(project: Project, url: TargetUrl, strategy: Strategy = Strategy.AUTO) -> cdc.Report:
    config = Config(project.source, url, (project.table,), strategy, until_caught_up=True, chunk_rows=300, checkpoint_seconds=0)
    return cdc.migrate(config)


def assert_identical(project: Project, url: TargetUrl) -> None:
    with closing(open_reader(url)) as reader:
        assert dict(reader.rows(project.table)) == dict(read_all(project.source, read_table(project.admin, project.table)))


@pytest.mark.waits
def test_documented_target_follows_a_real_source(project: Project, url: TargetUrl) -> None:
    """Copied and continued under writes, through a change of columns; `verify`, `status` and `rows` read it as they read every target."""
    shop.load(project.admin, project.table, 2_000)
    with shop.Writer(project.source, project.table, per_second=200) as writer:
        assert migrate(project, url).rows_copied > 0
        eventually(lambda: changed_in_all_ways(writer))
        continued = migrate(project, url)
        assert all(table.identical for table in cdc.verify(project.source, url))
    assert (continued.strategy, continued.rows_copied) == ("incremental", 0)
    assert continued.rows_streamed > 0
    project.sql("ALTER TABLE t ADD COLUMN more INT NOT NULL DEFAULT 7", "UPDATE t SET more = 8 WHERE id % 5 = 0")
    migrate(project, url)
    assert_identical(project, url)
    held = list(cdc.rows(str(url), project.table))
    assert {row["more"] for row in held} == {7, 8}
    status = cdc.status(url)
    assert (status.position, status.tables[str(project.table)].rows_held) == (str(project.gtids()), None)
    assert any(
        line == f"{project.table}: streaming, {status.tables[str(project.table)].rows_copied:,} copied" for line in summary.status(status)
    )


def test_documented_target_keeps_its_old_copy_until_a_new_one_is_complete(project: Project, url: TargetUrl) -> None:
    """A full copy over one that is held; the new one has no row that the source no longer has."""
    shop.load(project.admin, project.table, 1_000)
    migrate(project, url)
    project.sql("DELETE FROM t WHERE id % 3 = 0")
    assert migrate(project, url, Strategy.FULL).strategy == "full"
    assert_identical(project, url)


def test_second_migration_into_the_documented_target_is_refused(project: Project, url: TargetUrl) -> None:
    """While the first one writes."""
    shop.load(project.admin, project.table, 100)
    migrate(project, url)
    with closing(open_target(url)) as first:
        first.open()
        with pytest.raises(cdc.ConfigError, match="Is another migration running"):
            migrate(project, url)


def test_differences_of_the_documented_target_are_found(project: Project, url: TargetUrl) -> None:
    """One row changed, one missing, one too many."""
    shop.load(project.admin, project.table, 500)
    migrate(project, url)
    with closing(open_target(url)) as target:
        held = target.open()
        assert held
        target.db.executescript(  # type: ignore[attr-defined]
            "UPDATE rows SET row = x'00' WHERE key = (SELECT min(key) FROM rows); DELETE FROM rows WHERE key = "
            "(SELECT max(key) FROM rows); INSERT INTO rows SELECT part, name, key || x'00', row FROM rows LIMIT 1;"
        )
    (differences,) = cdc.verify(project.source, url)
    assert (differences.missing, differences.extra, differences.changed) == (1, 1, 1)
