"""What a statement means for followed tables, when the source shows only their present definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.errors import CdcError, NoSuchTable, PreflightFailed, SchemaChanged, Temporary
from cdc.model import (
    Column,
    ColumnsChanged,
    DefinitionConfirmed,
    LogEnd,
    Position,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableSkipped,
    TableStarted,
    TableState,
    TableTruncated,
)
from cdc.model.gtid import GtidSet
from cdc.model.selection import Selection
from cdc.mysql.definitions import Described, Unexplained
from cdc.mysql.names import NameRules
from cdc.mysql.query_events import QueryEvent, Session
from cdc.mysql.row_layout import Definition
from cdc.mysql.schema_tracker import UNEXPLAINED, SchemaTracker
from cdc.mysql.sql_tokens import Dialect

A, B = TableId("shop", "a"), TableId("shop", "b")


def table(name: TableId, *columns: str) -> Table:
    return Table(name, tuple(Column(column, "int", "int") for column in columns), (0,))


def written(text: str, schema: str) -> QueryEvent:
    return QueryEvent(text.encode(), schema)


def at(offset: int) -> Position:
    return Position(GtidSet(), "binlog.000001", offset)


class Source:
    """Gives the present definitions of tables, and the end of its binlog."""

    def __init__(self, end: int = 100) -> None:
        self.now: dict[TableId, Table | CdcError] = {}
        self.end = LogEnd("binlog.000001", end)

    def __call__(self, name: TableId) -> Described:
        missing = NoSuchTable(f"The table {name} does not exist.", hint="Make one.")
        return Described(self.now.get(name) or missing, self.end, {"more": b"\xfb", "five": b"\x015"}, name in self.now)


def kinds(changes: list[TableChange]) -> list[tuple[type[TableChange], TableId]]:
    return [(type(each), each.id) for each in changes]


def test_change_reads_the_columns_and_copies_anew() -> None:
    """The statement is reported, on one line."""
    source = Source()
    source.now[A] = table(A, "id", "more")
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source)
    (change,) = tracker.changes(written("ALTER TABLE a\n  MODIFY id INT", "shop"), at(50))
    assert change == TableReset(table(A, "id", "more"), "ALTER TABLE a MODIFY id INT")


def test_truncated_table_keeps_its_columns() -> None:
    """Unless they are not confirmed yet."""
    source = Source()
    source.now[A] = table(A, "id", "more")
    tracker = SchemaTracker([table(A, "id")], source)
    assert kinds(tracker.changes(written("TRUNCATE a", "shop"), at(10))) == [(TableTruncated, A)]
    tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(20))
    assert kinds(tracker.changes(written("TRUNCATE a", "shop"), at(30))) == [(TableReset, A)]
    tracker.confirm(at(100))
    assert kinds(tracker.changes(written("TRUNCATE a", "shop"), at(110))) == [(TableTruncated, A)]


def test_dropped_and_recreated_table_is_followed_by_name() -> None:
    """Tables of other names are skipped."""
    source = Source()
    source.now[A] = table(A, "x")
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source)
    swap = "RENAME TABLE a TO _a_old, _a_new TO a"
    assert kinds(tracker.changes(written(swap, "shop"), at(10))) == [(TableDropped, A), (TableStarted, A)]
    assert tracker.changes(written("DROP TABLE _a_old", "shop"), at(20)) == []
    assert kinds(tracker.changes(written("DROP DATABASE shop", ""), at(30))) == [(TableDropped, B), (TableDropped, A)]
    assert tracker.changes(written("DROP TABLE a", "shop"), at(40)) == []
    assert kinds(tracker.changes(written("CREATE TABLE a (x INT)", "shop"), at(50))) == [(TableStarted, A)]
    assert tracker.changes(written("CREATE TABLE IF NOT EXISTS a (x INT)", "shop"), at(60)) == []
    assert kinds(tracker.changes(written("CREATE OR REPLACE TABLE a (x INT)", "shop"), at(70))) == [(TableReset, A)]
    assert tracker.counts.total() == 3


def test_folded_names_match_in_any_case() -> None:
    """Where the server stores them folded; elsewhere another case is another table."""
    source = Source()
    folding = NameRules(1, {ord("A"): "a", ord("S"): "s"})
    assert kinds(SchemaTracker([table(A, "id")], source, names=folding).changes(written("DROP TABLE Shop.A", ""), at(1))) == [
        (TableDropped, A)
    ]
    assert SchemaTracker([table(A, "id")], source).changes(written("DROP TABLE Shop.A", ""), at(1)) == []


def test_unfit_table_stops_the_stream() -> None:
    """If no unread part of the binlog can explain it."""
    with pytest.raises(SchemaChanged, match=r"binlog\.000001:100 .*does not exist") as refused:
        SchemaTracker([table(A, "id")], Source()).changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(100))
    assert "Make one." in refused.value.hint


def test_unfit_table_may_be_dropped_later() -> None:
    """The stream continues to the end that the binlog had when the source was asked."""
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], Source())
    assert tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(50)) == []
    tracker.confirm(at(60))
    assert kinds(tracker.changes(written("DROP TABLE a", "shop"), at(70))) == [(TableDropped, A)]
    tracker.confirm(at(100))
    assert tracker.changes(written("ALTER TABLE b MODIFY id INT", "shop"), at(99)) == []
    with pytest.raises(SchemaChanged, match="does not exist"):
        tracker.confirm(at(100))


def test_unexplained_difference_copies_the_table_anew() -> None:
    """For held tables; a table that is not copied yet takes the present columns."""
    held = TableProgress(table(A, "id"), TableState.STREAMING)
    now: dict[TableId, Table | CdcError] = {A: table(A, "id", "more"), B: table(B, "id")}
    source = Source()
    source.now = now
    for statements, explained in (["ALTER TABLE a ADD more INT"], True), (["ALTER TABLE b ADD more INT"], False):
        tracker = SchemaTracker([held.table, table(B, "id")], source)
        tracker.compare([held, TableProgress(table(B, "id"))], now, source.end)
        for statement in statements:
            tracker.changes(written(statement, "shop"), at(50))
        if explained:
            assert DefinitionConfirmed(A) in tracker.confirm(at(100))
        else:
            assert kinds(tracker.confirm(at(99))) == []
            changes = [TableReset(table(A, "id", "more"), UNEXPLAINED), DefinitionConfirmed(B)]
            assert tracker.confirm(at(100)) == changes
            assert tracker.confirm(at(100)) == [DefinitionConfirmed(A)]


def test_columns_are_read_until_two_answers_agree() -> None:
    """Rows between two places with equal answers have those columns; other rows may only look so."""
    source = Source()
    held = TableProgress(table(A, "id"), TableState.STREAMING)
    tracker = SchemaTracker([held.table], source)
    tracker.compare([held], {A: table(A, "id", "more")}, source.end)
    source.now, source.end = {A: table(A, "id", "less")}, LogEnd("binlog.000001", 200)
    assert tracker.confirm(at(100)) == [TableReset(table(A, "id", "less"), UNEXPLAINED)]
    source.end = LogEnd("binlog.000001", 300)
    assert tracker.confirm(at(199)) == []
    assert tracker.confirm(at(200)) == [TableReset(table(A, "id", "less"), UNEXPLAINED)]
    assert tracker.confirm(at(300)) == [DefinitionConfirmed(A)]


def test_rows_with_unexplained_columns_copy_the_table_anew() -> None:
    """From the place before them, and again where the stream reaches the question's place, because earlier rows may have yet other
    columns.
    """
    source = Source()
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source)
    assert tracker.resolve(table_map(A, "id")) is not None
    with pytest.raises(Unexplained) as caught:
        tracker.resolve(table_map(A, "id", "more"))
    with pytest.raises(Unexplained):  # it comes again where the connection is lost before the copy has begun
        tracker.resolve(table_map(A, "id", "more"))
    source.now = {A: table(A, "id", "last")}
    assert tracker.copy_unexplained(caught.value, at(50)) == [TableReset(table(A, "id", "last"), UNEXPLAINED)]
    assert tracker.resolve(table_map(A, "id", "more")) is None
    assert tracker.resolve(table_map(A, "id", "last")) is not None
    assert tracker.confirm(at(99)) == []
    source.end = LogEnd("binlog.000001", 200)
    assert tracker.confirm(at(100)) == [TableReset(table(A, "id", "last"), UNEXPLAINED)]
    assert tracker.resolve(table_map(A, "id", "last")) is not None
    assert tracker.confirm(at(200)) == [DefinitionConfirmed(A)]


def test_rows_that_contradict_the_source_end_the_stream() -> None:
    """Instead of copying the table for ever."""
    source = Source()
    source.now = {A: table(A, "id")}
    tracker = SchemaTracker([table(A, "id")], source)
    with pytest.raises(Unexplained) as caught:
        tracker.resolve(table_map(A, "id", "more"))
    tracker.copy_unexplained(caught.value, at(50))
    assert tracker.resolve(table_map(A, "id", "more")) is None
    assert kinds(tracker.confirm(at(100))) == [(TableReset, A)]
    assert kinds(tracker.confirm(at(100))) == [(DefinitionConfirmed, A)]
    with pytest.raises(Unexplained) as caught:
        tracker.resolve(table_map(A, "id", "more"))
    with pytest.raises(SchemaChanged, match="again and again"):
        tracker.copy_unexplained(caught.value, at(150))


def test_table_unfit_after_an_unexplained_change() -> None:
    """Named in full it ends the stream, unless it is missing and a statement may still explain that; under a pattern it is skipped."""
    source, pattern = Source(), Selection((TableId("shop", "*"),))
    error = Unexplained(A, SchemaChanged("Other columns."))
    source.now = {A: PreflightFailed("It has no key.")}
    with pytest.raises(SchemaChanged, match="no key"):
        SchemaTracker([table(A, "id")], source).copy_unexplained(error, at(50))
    assert kinds(SchemaTracker([table(A, "id")], source, selection=pattern).copy_unexplained(error, at(50))) == [(TableSkipped, A)]
    source.now = {}
    assert kinds(SchemaTracker([table(A, "id")], source, selection=pattern).copy_unexplained(error, at(50))) == [(TableDropped, A)]
    tracker = SchemaTracker([table(A, "id")], source)
    assert kinds(tracker.copy_unexplained(error, at(50))) == [(TableDropped, A)]
    with pytest.raises(SchemaChanged, match="does not exist"):
        tracker.confirm(at(100))


def test_unexplained_tables_are_read_before_any_is_confirmed() -> None:
    """A source that is away then is asked again at the same place."""
    source = Source()
    held = [TableProgress(table(each, "id"), TableState.STREAMING) for each in (A, B)]

    def away(name: TableId) -> Described:
        if name == B and not source.now:
            raise Temporary("away")
        return Described(table(name, "id", "more"), source.end)

    tracker = SchemaTracker([each.table for each in held], away)
    tracker.compare(held, {A: table(A, "id", "more"), B: table(B, "id", "more")}, source.end)
    with pytest.raises(Temporary):
        tracker.confirm(at(100))
    source.now = {B: table(B, "id", "more")}
    assert kinds(tracker.confirm(at(100))) == [(TableReset, A), (TableReset, B)]


def test_change_without_a_source_to_ask_ends_the_stream() -> None:
    """As for a reader of the binlog alone."""
    tracker = SchemaTracker([table(A, "id")])
    for statement in (
        "TRUNCATE a",
        "DROP TABLE a",
        "ALTER TABLE a MODIFY id INT",
        "RENAME TABLE a TO c",
        "DROP DATABASE shop",
        "CREATE OR REPLACE TABLE a LIKE b",
    ):
        with pytest.raises(SchemaChanged, match=statement):
            tracker.changes(written(statement, "shop"), at(10))
    for statement in "TRUNCATE b", "CREATE TABLE a (id INT)", "CREATE TABLE b (id INT)":
        assert tracker.changes(written(statement, "shop"), at(10)) == []


@pytest.mark.parametrize(
    "event",
    [
        written("ALTER TABLE b SOMETHING 'new, about a", "shop"),
        written("SOMETHING NEW ABOUT shop.A", ""),
        written('SOMETHING STRANGE FOR "Shop" "a"', ""),
        QueryEvent(b"TRUNCATE TABLE a.\xff", "shop"),
        QueryEvent(b"TRUNCATE TABLE a, \xff", "shop", Dialect("unheard-of")),
        QueryEvent(b"TRUNCATE TABLE a", "shop", doubt="its status variable 99 is not known"),
        QueryEvent(b"DROP TABLE c, a", "shop", error_code=1051),
        QueryEvent("ALTER\xa0TABLE A DROP b".encode("latin-1"), "shop", Dialect("latin1")),
    ],
)
def test_unparsed_statement_touches_every_table_it_could_name(event: QueryEvent) -> None:
    """Such a table is copied anew, or dropped if it is missing; a listener cannot continue."""
    source = Source()
    source.now[A] = table(A, "id")
    assert kinds(SchemaTracker([table(A, "id"), table(B, "id")], source).changes(event, at(10)))[:1] == [(TableReset, A)]
    assert (TableDropped, A) in kinds(SchemaTracker([table(A, "id")], Source()).changes(event, at(10)))
    (change,) = SchemaTracker([table(A, "id")], source).changes(replace(event, query=event.query + b" " * 9 + b"-- x" * 99), at(10))
    assert isinstance(change, TableReset)
    assert change.because.endswith(")"), "the reason is told, however long the statement"
    with pytest.raises(SchemaChanged, match="not certain"):
        SchemaTracker([table(A, "id")]).changes(event, at(10))


def test_unparsed_statement_without_followed_names_is_skipped() -> None:
    """Copying all tables would be too much."""
    source = Source()
    source.now[A] = table(A, "id")
    for event in written("SOMETHING NEW ABOUT other.c", "shop"), written("TRUNCATE OTHER `", "shop"):
        assert SchemaTracker([table(TableId("shop", "xyz"), "id")], source).changes(event, at(10)) == []
    odd = TableId("shop", "\u8868")
    source.now[odd] = table(odd, "id")
    assert kinds(SchemaTracker([table(odd, "id")], source).changes(written("TRUNCATE OTHER `", "shop"), at(10))) == [(TableReset, odd)]


def test_unparsed_statement_may_have_created_a_matching_table() -> None:
    """Existing tables are looked for among its words."""
    source, c = Source(), TableId("shop", "c")
    source.now[c] = table(c, "id")
    tracker = SchemaTracker([table(A, "id")], source, selection=Selection((TableId("shop", "*"),)), existing=lambda: [A, B, c])
    assert kinds(tracker.changes(written("CREATE STRANGE TABLE c", "shop"), at(10))) == [(TableStarted, c)]


def test_statement_prepared_under_another_sql_mode_is_ambiguous() -> None:
    """Its event has the mode at execution; readings that all modes share, or only one allows, are certain."""
    source = Source()
    source.now[A] = table(A, "id", "v")

    def altered(parts: bytes, sql_mode: int = 0) -> list[tuple[type[TableChange], TableId]]:
        event = QueryEvent(b"ALTER TABLE a " + parts, "shop", Dialect(sql_mode=sql_mode))
        return kinds(SchemaTracker([table(A, "id", "v", "w")], source).changes(event, at(10)))

    assert altered(rb"COMMENT 'C:\', DROP w, COMMENT 'x'") == [(ColumnsChanged, A)]
    assert altered(rb"COMMENT 'it\'s', DROP w, COMMENT \"it\'s\"") == [(ColumnsChanged, A)]
    assert altered(rb"COMMENT 'a\', DROP w, COMMENT \'b'") == [(TableReset, A)]


def of_session(text: str, thread: int = 1, *, specific: bool = True, mariadb: bool = False) -> QueryEvent:
    return QueryEvent(text.encode(), "shop", Dialect(mariadb=mariadb), Session(1, thread), thread_specific=specific)


def test_temporary_table_differs_from_the_table_it_hides() -> None:
    """For every statement of its session; other sessions mean the permanent table."""
    source = Source()
    source.now[A] = table(A, "id")
    tracker = SchemaTracker([table(A, "id", "v"), table(B, "id")], source)
    hidden = "CREATE TEMPORARY TABLE a (id INT)", "ALTER TABLE a DROP COLUMN v", "TRUNCATE a", "ALTER TABLE a RENAME b", "TRUNCATE b"
    for statement in hidden:
        assert tracker.changes(of_session(statement), at(10)) == []
    assert kinds(tracker.changes(of_session("TRUNCATE a", specific=False), at(10))) == [(TableTruncated, A)]
    assert kinds(tracker.changes(of_session("TRUNCATE b", 2, specific=False), at(10))) == [(TableTruncated, B)]
    assert tracker.changes(of_session("DROP TEMPORARY TABLE b"), at(10)) == []
    assert kinds(tracker.changes(of_session("DROP TABLE b"), at(10))) == [(TableDropped, B)]


def test_possibly_temporary_table_is_read_again() -> None:
    """The session may have created it before the stream began."""
    source = Source()
    source.now[A] = table(A, "id", "v")
    for statement in "ALTER TABLE a DROP COLUMN v", "TRUNCATE a", "CREATE INDEX i ON a (v)", "ALTER TABLE a RENAME c":
        found = kinds(SchemaTracker([table(A, "id", "v")], source).changes(of_session(statement), at(10)))
        assert found == ([] if statement.startswith("CREATE") else [(TableReset, A)])
    tracker = SchemaTracker([table(A, "id")], source)
    assert kinds(tracker.changes(of_session("CREATE OR REPLACE TABLE a LIKE b"), at(10))) == [(TableReset, A)]


def test_mariadb_rename_counts_if_the_old_name_is_missing() -> None:
    """MariaDB does not say whether a temporary table was renamed; an exchange of names is ambiguous."""
    source, pattern = Source(), Selection((TableId("shop", "*"),))
    source.now[A] = table(A, "id")
    rename = of_session("RENAME TABLE a TO b", specific=False, mariadb=True)
    assert kinds(SchemaTracker([table(A, "id")], source, selection=pattern).changes(rename, at(10))) == [(TableReset, A)]
    source.now = {B: table(B, "id")}
    assert kinds(SchemaTracker([table(A, "id")], source, selection=pattern).changes(rename, at(10))) == [(TableRenamed, A)]
    cut_over, new = of_session("RENAME TABLE a TO x, b TO a", specific=False, mariadb=True), TableId("shop", "x")
    source.now = {A: table(A, "id")}
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source, selection=pattern)
    assert kinds(tracker.changes(cut_over, at(10))) == [(TableRenamed, A), (TableRenamed, B), (TableDropped, new)], (
        "the old table was dropped since"
    )
    source.now[new] = table(new, "id")
    tracker = SchemaTracker([table(A, "id"), table(new, "id")], source, selection=pattern)
    assert kinds(tracker.changes(cut_over, at(10))) == [(TableReset, A), (TableReset, new)], "no table takes the name of another"
    source.now = {B: table(B, "id")}
    swap = of_session("RENAME TABLE a TO x, b TO a, x TO b", specific=False, mariadb=True)
    source.now |= {A: table(A, "id")}
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source, selection=pattern)
    assert kinds(tracker.changes(swap, at(10))) == [(TableReset, A), (TableReset, B)]


def test_statement_written_by_the_server_is_read_as_utf_8() -> None:
    """For any character set of its session; where both readings are possible, both tables are touched."""
    source, names = Source(), [TableId("shop", name) for name in ("\u9f98", "\u732b", "\u00e7\u0152\u00ab")]
    source.now = {name: table(name, "id") for name in names}
    tracker = SchemaTracker([table(A, "id")], source, selection=Selection((TableId("shop", "*"),)))

    def created(charset: str, name: str) -> list[tuple[type[TableChange], TableId]]:
        return kinds(tracker.changes(QueryEvent(f"CREATE TABLE `{name}` (id INT)".encode(), "shop", Dialect(charset)), at(10)))

    assert created("big5", "\u9f98") == [(TableStarted, names[0])]
    assert set(created("latin1", "\u732b")) == {(TableStarted, names[1]), (TableStarted, names[2])}


@pytest.mark.parametrize("rule", [1, 2])
def test_names_compare_like_the_servers(rule: int) -> None:
    """With its own lower-case mapping; a new name is stored as the server stores it."""
    dotted = TableId("shop", "i") if rule == 1 else TableId("Shop", "\u0130")
    names = NameRules(rule, {0x130: "i", ord("H"): "h", ord("O"): "o", ord("P"): "p", ord("S"): "s", ord("T"): "t"})
    source = Source()
    source.now[dotted] = table(dotted, "id")
    tracker = SchemaTracker([table(dotted, "id")], source, selection=Selection((TableId("SHOP", "*"),)), names=names)
    assert kinds(tracker.changes(written("TRUNCATE SHOP.`\u0130`", ""), at(1))) == [(TableTruncated, dotted)]
    to = TableId("shop", "t") if rule == 1 else TableId("Shop", "T")
    assert tracker.changes(written("RENAME TABLE Shop.i TO Shop.T", ""), at(2)) == [
        TableRenamed(dotted, to, "RENAME TABLE Shop.i TO Shop.T")
    ]


def test_unconfirmed_columns_are_read_again_on_another_server() -> None:
    """Old binlog coordinates are void: equal columns continue, different ones are copied anew or must be explained here."""
    held, fresh = TableProgress(table(A, "id"), TableState.STREAMING), TableProgress(table(B, "id"))
    source = Source(100)
    source.now = {A: table(A, "id", "more"), B: table(B, "id")}
    tracker = SchemaTracker([held.table, fresh.table], source)
    tracker.compare([held, fresh], source.now, source.end)
    source.end = LogEnd("binlog.000001", 900)
    assert tracker.ask_again() == []
    tracker.confirm(at(899))
    source.now = {A: table(A, "id"), B: table(B, "id", "more")}
    assert kinds(tracker.ask_again()) == [(TableReset, B)]
    tracker.confirm(at(900))
    assert tracker.ask_again() == []


def test_difference_unexplained_after_failover_copies_at_the_new_place() -> None:
    """Not at the old server's place."""
    held = TableProgress(table(A, "id"), TableState.STREAMING)
    source = Source(100)
    source.now = {A: table(A, "id", "more")}
    tracker = SchemaTracker([held.table], source)
    tracker.compare([held], source.now, source.end)
    source.end = LogEnd("binlog.000001", 900)
    tracker.ask_again()
    assert tracker.confirm(at(100)) == []
    assert kinds(tracker.confirm(at(900))) == [(TableReset, A)]


def test_statement_has_no_effect_while_the_source_is_away() -> None:
    """It comes again when the source is back."""
    source = Source()
    swap = "RENAME TABLE a TO _a, b TO a, other.c TO c"
    source.now[TableId("shop", "c")] = table(TableId("shop", "c"), "id")
    answers: list[Described | Temporary] = [Temporary("away"), source(TableId("shop", "c"))]

    def describe(name: TableId) -> Described:
        answer = answers.pop(0)
        if isinstance(answer, Temporary):
            raise answer
        return answer

    tracker = SchemaTracker([table(A, "id"), table(B, "id")], describe, selection=Selection((A, TableId("shop", "*"))))
    with pytest.raises(Temporary):
        tracker.changes(written(swap, "shop"), at(10))
    c = TableId("shop", "c")
    assert kinds(tracker.changes(written(swap, "shop"), at(10))) == [(TableRenamed, A), (TableRenamed, B), (TableStarted, c)]


OLD = Table(A, tuple(Column(name, "int", "int") for name in ("id", "x", "y")), (0,))


@pytest.mark.parametrize(
    ("statement", "columns", "values"),
    [
        ("ADD COLUMN more INT", ["id", "x", "y", "more"], (0, 1, 2, b"\xfb")),
        ("ADD five INT NOT NULL DEFAULT 5 FIRST, DROP x", ["five", "id", "y"], (b"\x015", 0, 2)),
        ("RENAME COLUMN x TO y, RENAME COLUMN y TO x", ["id", "y", "x"], (0, 1, 2)),
        ("RENAME COLUMN X TO more, ADD five INT", ["id", "more", "five", "y"], (0, 1, b"\x015", 2)),
        ("RENAME COLUMN x TO z, ADD more INT", ["id", "z", "y", "more"], (0, 1, 2, b"\xfb")),
        ("DROP x, DROP y", ["id"], (0,)),
        ("ENGINE = InnoDB", ["id", "x", "y"], (0, 1, 2)),
        ("ADD unknown INT", ["id", "x", "y", "unknown"], None),
        ("DROP x, ADD x INT", ["id", "x", "y"], None),
        ("RENAME COLUMN x TO z, ADD x INT", ["id", "z", "y", "x"], None),
        ("MODIFY x INT", ["id", "x", "y"], None),
        ("DROP x", ["id", "x", "y"], None),
        ("DROP x", ["id"], None),
        ("DROP z", ["id", "x", "y"], None),
        ("DROP IF EXISTS z", ["id", "x", "y"], (0, 1, 2)),
        ("DROP IF EXISTS \u00df", ["id", "x", "y"], None),
        ("DROP IF EXISTS x, ADD IF NOT EXISTS x INT", ["id", "x", "y"], None),
        ("RENAME COLUMN z TO x", ["id", "x", "y"], None),
        ("RENAME COLUMN x TO z", ["id", "x", "y"], None),
        ("ADD more INT", ["id", "x", "y"], None),
        ("ADD x INT", ["id", "x", "y"], None),
        ("ADD IF NOT EXISTS x INT", ["id", "x", "y"], (0, 1, 2)),
        ("ADD five INT", ["id", "x", "y", "five", "more"], None),
        ("ADD (five INT, more INT)", ["id", "x", "y", "five", "more"], (0, 1, 2, b"\x015", b"\xfb")),
    ],
)
def test_rows_are_converted_where_that_is_exact(statement: str, columns: list[str], values: tuple[int | bytes, ...] | None) -> None:
    """By the columns' names; otherwise the table is copied anew."""
    source = Source()
    new = Table(A, tuple(Column(name, "int", "int") for name in columns), (columns.index("id"),))
    source.now[A] = new
    (change,) = SchemaTracker([OLD], source).changes(written(f"ALTER TABLE a {statement}", "shop"), at(50))
    because = f"ALTER TABLE a {statement}"
    assert change == (TableReset(new, because) if values is None else ColumnsChanged(new, values, 3, because))


def test_ambiguous_column_names_copy_anew() -> None:
    """Equal spellings are the same column; `straße` and `strasse` are two."""
    source, names = Source(), ("id", "strasse", "stra\u00dfe", "\u00e9")
    source.now[A] = table(A, *names, "five")
    old = table(A, *names)
    (change,) = SchemaTracker([old], source).changes(written("ALTER TABLE a ADD five INT", "shop"), at(50))
    assert isinstance(change, ColumnsChanged)
    assert change.values == (0, 1, 2, 3, b"\x015")
    source.now[A] = table(A, *names[:-1])
    assert kinds(SchemaTracker([old], source).changes(written("ALTER TABLE a DROP \u00c9", "shop"), at(50))) == [(TableReset, A)]
    assert kinds(SchemaTracker([old], source).changes(written("ALTER TABLE a DROP \u00e9", "shop"), at(50))) == [(ColumnsChanged, A)]


def test_changed_key_or_type_copies_anew() -> None:
    """As seen on the source, for any statement."""
    source = Source()
    for new in Table(A, OLD.columns, (1,)), Table(A, (*OLD.columns[:2], Column("y", "bigint", "bigint")), (0,)):
        source.now[A] = new
        assert kinds(SchemaTracker([OLD], source).changes(written("ALTER TABLE a ENGINE = InnoDB", "shop"), at(50))) == [(TableReset, A)]


COMPUTED = Table(A, (*table(A, "id").columns, Column("s", "int", "int", generated=True)), (0,))


@pytest.mark.parametrize(
    ("statement", "anew"),
    [
        ("ALTER TABLE a COMMENT 'x'", A), ("ALTER TABLE a ADD INDEX (s)", A), ("CREATE INDEX i ON a (s)", A), ("OPTIMIZE TABLE b, a", A),
        ("ALTER TABLE a RENAME TO a, FORCE", A), ("ALTER TABLE a RENAME TO b, FORCE", B), ("ALTER TABLE a RENAME TO b, ADD INDEX (s)", B),
        ("ALTER TABLE a RENAME TO b", None), ("RENAME TABLE a TO b", None),
    ],
)  # fmt: skip
def test_rebuild_copies_a_table_with_stored_generated_columns(statement: str, anew: TableId | None) -> None:
    """A table without them is not even read again; a listener keeps no rows."""
    for columns in (COMPUTED, table(A, "id")):
        source = Source()
        source.now = {A: columns} if " b" not in statement else {B: replace(columns, id=B)}
        source.now |= {A: columns} if "OPTIMIZE" in statement else {}
        listener = SchemaTracker([columns], source, selection=Selection((A, B)), copied=False)
        tracker = SchemaTracker([columns], source, selection=Selection((A, B)))
        assert bool(listener.changes(written(statement, "shop"), at(200))) == ("RENAME TO b" in statement or "RENAME TABLE" in statement)
        found = [each.id for each in tracker.changes(written(statement, "shop"), at(200)) if isinstance(each, TableReset | TableStarted)]
        assert found == ([anew] if anew and columns is COMPUTED else [])


def test_second_change_before_confirmation_copies_anew() -> None:
    """The columns read may be those after the second; their confirmation is reported."""
    source = Source()
    source.now[A] = table(A, "id", "more")
    tracker = SchemaTracker([table(A, "id")], source)
    assert kinds(tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(50))) == [(ColumnsChanged, A)]
    assert kinds(tracker.changes(written("ALTER TABLE a ENGINE = InnoDB", "shop"), at(60))) == [(TableReset, A)]
    assert tracker.confirm(at(99)) == []
    assert tracker.confirm(at(100)) == [DefinitionConfirmed(A)]
    assert kinds(tracker.changes(written("ALTER TABLE a ENGINE = InnoDB", "shop"), at(110))) == [(ColumnsChanged, A)]


def test_intermediate_name_of_a_rename_is_not_read() -> None:
    """With rows that are kept, and without."""
    source = Source()
    source.now |= {A: table(A, "id"), B: table(B, "id")}
    tracker = SchemaTracker([table(A, "id"), table(B, "id")], source, selection=Selection((A, TableId("shop", "*"))))
    swap, x = "RENAME TABLE a TO x, b TO a, x TO b", TableId("shop", "x")
    assert tracker.changes(written(swap, "shop"), at(10)) == [TableRenamed(A, x, swap), TableRenamed(B, A, swap), TableRenamed(x, B, swap)]
    tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(90))
    assert kinds(tracker.changes(written(swap, "shop"), at(100))) == [(TableDropped, A), (TableRenamed, B), (TableStarted, B)]


@pytest.mark.parametrize("mariadb", [False, True])
def test_table_renamed_to_its_own_name_continues(mariadb: bool) -> None:
    """ALTER TABLE allows that, without effect."""
    source = Source()
    source.now[A] = table(A, "id")
    tracker = SchemaTracker([table(A, "id")], source, names=NameRules(1, {ord("A"): "a"}))
    for statement in "ALTER TABLE a RENAME TO shop.a", "ALTER TABLE a RENAME A":
        assert tracker.changes(of_session(statement, specific=False, mariadb=mariadb), at(10)) == []
    assert tracker.tables == [A]


def test_matching_tables_are_taken_in_and_renamed_with_their_rows() -> None:
    """Both names are followed, so no row is copied."""
    source = Source()
    source.now[B] = table(B, "id")
    tracker = SchemaTracker([table(A, "id")], source, selection=Selection((A, TableId("shop", "*"))))
    assert kinds(tracker.changes(written("CREATE TABLE b (id INT PRIMARY KEY)", "shop"), at(50))) == [(TableStarted, B)]
    tracker.confirm(at(100))
    swap = "RENAME TABLE a TO _a, b TO a"
    assert tracker.changes(written(swap, "shop"), at(110)) == [TableRenamed(A, TableId("shop", "_a"), swap), TableRenamed(B, A, swap)]
    assert kinds(tracker.changes(written("RENAME TABLE a TO other.a", "shop"), at(120))) == [(TableDropped, A)]
    assert tracker.changes(written("CREATE TABLE other.b (id INT PRIMARY KEY)", "shop"), at(130)) == []


def test_unfit_table_of_a_pattern_is_skipped_until_fit() -> None:
    """Its rows are dropped, with the reason, and copied when a statement has made it fit; a table named in full ends the stream."""
    source, pattern = Source(), Selection((TableId("shop", "*"),))
    why = PreflightFailed("shop.a has no primary key.", hint="Add one.")
    source.now |= {A: why, B: PreflightFailed("shop.b has no primary key.", hint="Add one.")}
    tracker = SchemaTracker([table(A, "id")], source, selection=pattern)
    reason = "it has no primary key. `cdc check SOURCE --tables 'shop.a'` says how to repair it."
    drop, create = "ALTER TABLE a DROP PRIMARY KEY", "CREATE TABLE b (v INT)"
    assert tracker.changes(written(drop, "shop"), at(50)) == [TableSkipped(A, drop, reason)]
    assert tracker.changes(written(create, "shop"), at(60)) == [TableSkipped(B, create, reason.replace("shop.a", "shop.b"))]
    source.now[A] = table(A, "id")
    assert kinds(tracker.changes(written("ALTER TABLE a ADD PRIMARY KEY (id)", "shop"), at(70))) == [(TableStarted, A)]
    assert kinds(tracker.changes(written("DROP TABLE b", "shop"), at(80))) == [(TableDropped, B)]
    assert tracker.changes(written("ALTER TABLE b MODIFY v INT", "shop"), at(90)) == []
    source.now[A] = why
    with pytest.raises(SchemaChanged, match="no primary key"):
        SchemaTracker([table(A, "id")], source, selection=Selection((A, *pattern.wanted))).changes(written(drop, "shop"), at(100))


def test_table_skipped_at_the_start_is_taken_in_once_repaired() -> None:
    """Also when another table is given its name, or its database is dropped."""
    source, pattern = Source(), Selection((TableId("shop", "*"),))
    source.now[B] = table(B, "id")
    mend = "ALTER TABLE b ADD PRIMARY KEY (id)"
    assert kinds(SchemaTracker([table(A, "id")], source, selection=pattern, skipped=[B]).changes(written(mend, "shop"), at(50))) == [
        (TableStarted, B)
    ]
    tracker = SchemaTracker([table(A, "id")], source, selection=pattern, skipped=[B])
    assert kinds(tracker.changes(written("RENAME TABLE b TO elsewhere.b, a TO b", "shop"), at(50))) == [
        (TableDropped, B),
        (TableRenamed, A),
    ]
    tracker = SchemaTracker([table(A, "id")], source, selection=pattern, skipped=[B])
    assert kinds(tracker.changes(written("DROP DATABASE shop", ""), at(50))) == [(TableDropped, A), (TableDropped, B)]


def test_unexplained_table_of_a_pattern_is_skipped() -> None:
    """Its rows do not stay as if they were current; a missing table is dropped."""
    source, pattern = Source(), Selection((TableId("shop", "*"),))
    held = [TableProgress(table(each, "id"), TableState.STREAMING) for each in (A, B)]
    tracker = SchemaTracker([each.table for each in held], source, selection=pattern)
    tracker.compare(held, {A: PreflightFailed("It has no primary key."), B: NoSuchTable("It is gone.")}, source.end)
    assert kinds(tracker.confirm(at(100))) == [(TableSkipped, A), (TableDropped, B)]


def test_excluded_table_is_not_taken_in() -> None:
    """Unless it is named in full."""
    source = Source()
    source.now |= {A: table(A, "id"), B: table(B, "id")}
    selection = Selection((TableId("shop", "*"), B), (TableId("shop", "*"),))
    tracker = SchemaTracker([], source, selection=selection)
    assert tracker.changes(written("CREATE TABLE a (id INT PRIMARY KEY)", "shop"), at(10)) == []
    assert kinds(tracker.changes(written("CREATE TABLE b (id INT PRIMARY KEY)", "shop"), at(20))) == [(TableStarted, B)]


def table_map(name: TableId, *columns: str) -> bytes:
    """Of INT columns, the first one the key, with full metadata."""
    names = b"".join(bytes((len(column),)) + column.encode() for column in columns)
    n = len(columns)
    body = bytes(8) + b"".join(bytes((len(part),)) + part.encode() + b"\0" for part in name)
    body += bytes((n,)) + b"\x03" * n + b"\0" + bytes((n + 7) // 8)
    return body + b"\x01\x01\0" + b"\x04" + bytes((len(names),)) + names + b"\x08\x01\0"


def listening(source: Source, *tables: Table, **more: Any) -> SchemaTracker:
    """A tracker as `cdc tail` uses it, from the binlog's present end."""
    source.now |= {each.id: each for each in tables}
    tracker = SchemaTracker(tables, source, copied=False, **more)
    tracker.compare([TableProgress(each) for each in tables], source.now, source.end)
    source.end = LogEnd("binlog.000001", source.end.offset + 100)
    return tracker


def read_as(tracker: SchemaTracker, body: bytes) -> Definition:
    """The columns with which rows behind this table map are read."""
    found = tracker.resolve(body)
    assert found is not None
    return found.table


def test_listener_reads_rows_with_their_own_columns() -> None:
    """Columns after a statement are certain at the binlog's end of the moment when the source was asked."""
    source = Source(100)
    tracker = listening(source, table(A, "id"))
    assert read_as(tracker, table_map(A, "id")) == (table(A, "id"), None)
    source.now[A] = new = table(A, "id", "more")
    assert kinds(tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(150))) == [(ColumnsChanged, A)]
    assert read_as(tracker, table_map(A, "id", "more")) == (new, source.end)
    assert tracker.confirm(at(200)) == [DefinitionConfirmed(A)]
    assert read_as(tracker, table_map(A, "id", "more")) == (new, None)
    source.now[A] = newest = table(A, "id", "other")
    assert kinds(tracker.changes(written("ALTER TABLE a RENAME COLUMN more TO other", "shop"), at(250))) == [(ColumnsChanged, A)]
    source.end = LogEnd("binlog.000001", 300)
    tracker.confirm(at(250))
    assert read_as(tracker, table_map(A, "id", "other")).table == newest


def test_listener_ends_at_rows_that_contradict_the_source() -> None:
    """A migration skips them, because it copies them later."""
    for copied in True, False:
        source = Source(200)
        source.now[A] = table(A, "id", "more", "most")
        tracker = SchemaTracker([table(A, "id")], source, copied=copied)
        tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(100))
        if copied:
            assert tracker.resolve(table_map(A, "id", "more")) is None
        else:
            with pytest.raises(SchemaChanged, match=r"\(id, more\) are not those .* \(id, more, most\)") as refused:
                tracker.resolve(table_map(A, "id", "more"))
            assert "--from" in refused.value.hint
            assert "--strategy" not in refused.value.hint


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a MODIFY more INT ZEROFILL",
        "DROP TABLE a",
        "RENAME TABLE a TO b",
        "CREATE OR REPLACE TABLE a (id INT)",
        "DROP DATABASE shop",
    ],
)
def test_listener_ends_at_a_second_change_after_uncertain_rows(statement: str) -> None:
    """The source may have been asked after both; a change after that moment, or without rows in between, is followed."""
    for offset, rows_between in (150, True), (200, True), (201, True), (150, False):
        source = Source(200)
        source.now[A] = source.now[B] = table(A, "id", "more")
        tracker = SchemaTracker([table(A, "id")], source, copied=False)
        tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(100))
        if rows_between:
            read_as(tracker, table_map(A, "id", "more"))
        if rows_between and offset <= 200:
            with pytest.raises(SchemaChanged, match="Changes before it were read") as refused:
                tracker.changes(written(statement, "shop"), at(offset))
            assert "--from" in refused.value.hint
            assert "--strategy" not in refused.value.hint
        else:
            assert tracker.changes(written(statement, "shop"), at(offset))


def test_first_columns_of_a_listener_hold_until_its_question() -> None:
    """An earlier change ends it if rows have come, because their columns are unknown."""
    source = Source(200)
    tracker = listening(source, table(A, "id"))
    assert kinds(tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(100))) == [(TableReset, A)]
    source.end = LogEnd("binlog.000001", 200)
    tracker = listening(source, table(A, "id"))
    read_as(tracker, table_map(A, "id"))
    with pytest.raises(SchemaChanged, match="Changes before it were read"):
        tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(150))


def test_listener_reports_truncated_renamed_and_created_tables() -> None:
    """With certain columns and without, as long as no row was read."""
    source = Source(100)
    tracker = listening(source, table(A, "id"), selection=Selection((TableId("shop", "*"),)))
    tracker.changes(written("ALTER TABLE a MODIFY id INT", "shop"), at(120))
    assert kinds(tracker.changes(written("TRUNCATE a", "shop"), at(130))) == [(TableTruncated, A)]
    tracker.confirm(at(200))
    assert kinds(tracker.changes(written("RENAME TABLE a TO b", "shop"), at(210))) == [(TableRenamed, A)]
    assert read_as(tracker, table_map(B, "id")) == (table(B, "id"), None)
    assert kinds(tracker.changes(written("CREATE TABLE a (id INT)", "shop"), at(220))) == [(TableStarted, A)]


def test_listener_ends_at_rows_of_an_unknown_table() -> None:
    """The table was dropped since; without rows before the drop, no change is missing."""
    for rows in True, False:
        tracker = SchemaTracker([table(A, "id")], Source(200), copied=False)
        assert tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(100)) == []
        if rows:
            with pytest.raises(SchemaChanged, match="does not exist"):
                tracker.resolve(table_map(A, "id", "more"))
        else:
            assert kinds(tracker.changes(written("DROP TABLE a", "shop"), at(150))) == [(TableDropped, A)]


def test_listener_ends_at_an_unparsed_statement() -> None:
    """It may have changed rows, which a migration would copy again."""
    source = Source(100)
    with pytest.raises(SchemaChanged, match="not certain") as refused:
        listening(source, table(A, "id")).changes(written("SOMETHING NEW ABOUT a", "shop"), at(150))
    assert "--from" in refused.value.hint


def test_listener_ends_when_a_failover_changes_uncertain_columns() -> None:
    """Certain columns continue."""
    source = Source(200)
    source.now[A] = table(A, "id", "more")
    tracker = SchemaTracker([table(A, "id")], source, copied=False)
    tracker.changes(written("ALTER TABLE a ADD more INT", "shop"), at(100))
    read_as(tracker, table_map(A, "id", "more"))
    assert tracker.ask_again() == []
    source.now[A] = table(A, "id", "more", "most")
    with pytest.raises(SchemaChanged, match="Another server"):
        tracker.ask_again()
