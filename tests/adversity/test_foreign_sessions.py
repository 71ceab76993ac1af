"""Statements of sessions with any settings while a migration follows through kills; afterwards every table equals the source.

The sessions differ in SQL mode, character set, binlog format, default schema, temporary tables, and in what generated columns depend on
(time zone, language, digits of quotients, how an ALTER rebuilds); the statements differ in quoting, in comments that are code, in prefixes
and in names. Some fail. `CDC_SESSIONS_STATEMENTS` is how many a server must have accepted, `CDC_SESSIONS_SEED` repeats the statements of a
failed run, which prints its seed.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pymysql
import pytest

from cdc.mysql.connection import Connection, connect
from tests.fix_migration import Project

pytestmark = pytest.mark.waits

STATEMENTS = int(os.environ.get("CDC_SESSIONS_STATEMENTS", "300"))
SEED = int(os.environ.get("CDC_SESSIONS_SEED") or random.SystemRandom().randrange(1 << 32))
PER_ROUND = (5, 15, 30, 60)

TABLES = (
    "t",
    "Orders",
    "orders",
    "a.b",
    "sp ace",
    "back`tick",
    "straße",
    "STRASSE",
    "İx",
    "碁",
    "é",
    "ＦＵＬＬ",
    "ǆ",
    'quo"te',
    "truncate",
    "日本",
)
COLUMNS = ("b", "B2", "straße", "strasse", "É", "co l", "c`x", "drop", "日付", "ſ", "s.t")
MODES = (
    "ANSI_QUOTES",
    "NO_BACKSLASH_ESCAPES",
    "PIPES_AS_CONCAT",
    "IGNORE_SPACE",
    "STRICT_TRANS_TABLES",
    "NO_ZERO_DATE",
    "ANSI",
    "TRADITIONAL",
    "PAD_CHAR_TO_FULL_LENGTH",
)
MARIADB_MODES = ("MSSQL", "ORACLE", "POSTGRESQL", "DB2", "MAXDB", "SIMULTANEOUS_ASSIGNMENT")
UNFIT_CHARSETS = ("ucs2", "utf16", "utf16le", "utf32")
"""Those that a client cannot have."""
TYPES = (
    "INT",
    "INT NOT NULL DEFAULT 7",
    "BIGINT DEFAULT -3",
    "VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'zwölf'",
    "VARCHAR(9) CHARACTER SET latin1",
    "DATETIME(3)",
    "INT AS (a + 1) STORED",
    "VARCHAR(60) AS (CONCAT(a / 7)) STORED",
    "VARCHAR(60) AS (CONCAT(a / 7)) VIRTUAL",
    "VARCHAR(60) AS (CONCAT(WEEK('2024-12-27' + INTERVAL a DAY), DAYNAME('2024-12-27' + INTERVAL a DAY))) VIRTUAL",
    "ENUM('x','y''z') DEFAULT 'x'",
)
TEXTS = ("plain", "C:\\", "it''s", "a, DROP COLUMN a", "start transaction", "/*", "*/", "-- x", "`", "TRUNCATE TABLE t", "日本", "é")


@dataclass
class Session:
    """A connection and the settings with which its statements are written."""

    connection: Connection
    rng: random.Random
    schemas: tuple[str, str]
    """The one that is followed, and the other."""
    mariadb: bool
    default: str = ""
    ansi: bool = False
    backslash: bool = True
    charset: str = "utf8mb4"
    there: dict[str, list[str]] = field(default_factory=dict)
    """The tables that are followed now, with their columns."""

    def quoted(self, name: str) -> str:
        """An identifier in one of the ways in which this session may write it."""
        ways = ["`" + name.replace("`", "``") + "`"]
        if self.ansi:
            ways.append('"' + name.replace('"', '""') + '"')
        if name.isidentifier() and name.isascii() and name not in ("drop", "truncate"):
            ways.append(name)
        return self.rng.choice(ways)

    def table(self, name: str = "", schema: str = "") -> str:
        """The name of a table, qualified or not."""
        if not name and self.there and self.rng.random() < 0.7:
            name, schema = self.rng.choice([*self.there]), self.schemas[0]
        name, schema = name or self.rng.choice(TABLES), schema or self.schemas[self.rng.random() < 0.15]
        if self.default == schema and self.rng.random() < 0.6:
            return self.quoted(name)
        return self.quoted(schema) + self.rng.choice((".", ".", " . ", "/* x */.")) + self.quoted(name)

    def fresh(self, schema: str = "") -> str:
        """The name of a new table, usually one that does not exist."""
        free = [name for name in TABLES if name not in self.there]
        return self.table(self.rng.choice(free if free and self.rng.random() < 0.8 else TABLES), schema)

    def known(self) -> str:
        """The name of a followed table, if one exists."""
        return self.table(self.rng.choice([*self.there] or TABLES), self.schemas[0])

    def column(self, there: float = 0.0) -> str:
        """The name of a column; with this probability one that some table has."""
        known = sorted({name for names in self.there.values() for name in names} & {*COLUMNS}) if self.rng.random() < there else ()
        return self.quoted(self.rng.choice(known or COLUMNS))

    def text(self) -> str:
        """A literal."""
        text = self.rng.choice(TEXTS)
        text = text.replace("\\", "\\\\") if self.backslash else text
        return f"'{text}'"

    def type(self) -> str:
        return self.rng.choice(TYPES)


Statements = list[str]
Kind = Callable[[Session], Statements]


def create(s: Session) -> Statements:
    words = s.rng.choice(
        (
            "CREATE TABLE",
            "create table if not exists",
            "CREATE  /* TABLE x */ TABLE",
            "CREATE OR REPLACE TABLE" if s.mariadb else "CREATE TABLE",
        )
    )
    comment = s.rng.choice(("", f" COMMENT={s.text()}", f" ENGINE=InnoDB COMMENT = {s.text()}"))
    return [f"{words} {s.fresh()} (id INT PRIMARY KEY, a INT, v VARCHAR(40) CHARACTER SET utf8mb4){comment}"]


def create_generated(s: Session) -> Statements:
    """Its generated columns depend on the session; MariaDB and some SQL modes allow fewer of them to be stored."""
    virtual = ("CAST(ts AS CHAR(30))", "DAYNAME(ts)", "CONCAT(WEEK(ts))", "CONCAT(c, '|')", "CONCAT(a / 7)")
    stored = ("CONCAT(a / 7)", "CONCAT(id / 3, v)") if s.mariadb else (*virtual[:3], virtual[4])
    columns = [f"g{n} VARCHAR(80) AS ({each}) VIRTUAL" for n, each in enumerate(s.rng.sample(virtual, s.rng.choice((0, 1, 3))))]
    columns += [f"s{n} VARCHAR(80) AS ({each}) STORED" for n, each in enumerate(s.rng.sample(stored, s.rng.choice((0, 1, 2))))]
    columns += ["a INT", "v VARCHAR(40) CHARACTER SET utf8mb4", "ts TIMESTAMP NULL DEFAULT '2024-12-31 22:00:00'", "c CHAR(9) DEFAULT 'c'"]
    s.rng.shuffle(columns)
    table = s.fresh(s.schemas[0])
    return [
        f"CREATE TABLE {table} (id INT PRIMARY KEY, {', '.join(columns)})",
        f"INSERT INTO {table} (id, a) VALUES (1, 1), (2, 2), (5, 5)",
    ]


def rebuild(s: Session) -> Statements:
    table = s.known()
    ways = (
        f"ALTER TABLE {table} FORCE, ALGORITHM=COPY",
        f"OPTIMIZE TABLE {table}",
        f"ALTER TABLE {table} COMMENT {s.text()}, ALGORITHM = COPY",
        f"ALTER TABLE {table} PARTITION BY HASH (id) PARTITIONS 2",
        f"ALTER TABLE {table} REMOVE PARTITIONING",
        f"ALTER TABLE {table} RENAME TO {s.fresh(s.schemas[0])}, ALGORITHM=COPY",
        f"CREATE INDEX {s.quoted('reb')} ON {table} (a) ALGORITHM=COPY",
    )
    return s.rng.sample(ways, 2)


def create_like(s: Session) -> Statements:
    return [f"CREATE TABLE {s.fresh()} LIKE {s.known()}"]


def create_as(s: Session) -> Statements:
    return [f"CREATE TABLE {s.fresh()} (id INT PRIMARY KEY, a INT, v VARCHAR(40)) AS SELECT id, a, 'x' AS v FROM {s.table()}"]


def drop(s: Session) -> Statements:
    words = s.rng.choice(("DROP TABLE", "DROP TABLE IF EXISTS", "drop tables if exists", "DROP /*!40000 TABLE */"))
    more = f", {s.table()}" if s.rng.random() < 0.2 else ""
    return [f"{words} {s.table()}{more}"]


def truncate(s: Session) -> Statements:
    return [f"{s.rng.choice(('TRUNCATE', 'TRUNCATE TABLE', 'truncate /* x */ table'))} {s.table()}"]


def rename(s: Session) -> Statements:
    old, new = s.known(), s.fresh(s.schemas[s.rng.random() < 0.2])
    if s.rng.random() < 0.3:
        return [f"ALTER TABLE {old} RENAME {s.rng.choice(('', 'TO ', 'AS '))}{new}"]
    return [f"RENAME TABLE {old} TO {new}"]


def swap(s: Session) -> Statements:
    a, b, x = s.known(), s.known(), s.table("swapped", s.schemas[0])
    return [f"RENAME TABLE {a} TO {x}, {b} TO {a}, {x} TO {b}"]


def alter(s: Session) -> Statements:
    fresh, old, other = s.column(), s.column(0.9), s.column(0.9)
    parts = [
        f"ADD COLUMN {fresh} {s.type()}",
        f"ADD {fresh} {s.type()} FIRST",
        f"DROP COLUMN {old}",
        f"DROP COLUMN {old}, ADD COLUMN {old} INT",
        f"RENAME COLUMN {old} TO {fresh}",
        f"RENAME COLUMN {old} TO {other}, RENAME COLUMN {other} TO {old}",
        f"CHANGE {old} {fresh} {s.type()}",
        f"MODIFY COLUMN {old} {s.type()}",
        f"COMMENT {s.text()}",
        "ALTER COLUMN a SET DEFAULT 5",
        f"ADD INDEX ({old})",
        "FORCE",
        "COMMENT 'x', ALGORITHM=INPLACE" if s.rng.random() < 0.5 else "ENGINE = InnoDB",
    ]
    chosen = ", ".join(s.rng.sample(parts, s.rng.choice((1, 1, 1, 2, 3))))
    return [f"{s.rng.choice(('ALTER TABLE', 'alter table', 'ALTER IGNORE TABLE' if s.mariadb else 'ALTER TABLE'))} {s.table()} {chosen}"]


def alter_with_text(s: Session) -> Statements:
    """Words within a string literal do not belong to the statement, words behind it do."""
    table, column = s.table(), s.column(0.9)
    return [
        f"ALTER TABLE {table} ADD COLUMN {column} INT DEFAULT 4",
        f"ALTER TABLE {table} COMMENT {s.text()}, DROP COLUMN {column}, ADD COLUMN {column} INT AFTER a, COMMENT {s.text()}",
    ]


def alter_that_fails(s: Session) -> Statements:
    two_phase = ["SET SESSION binlog_alter_two_phase = 1"] if s.mariadb else []
    return [
        *two_phase,
        f"ALTER TABLE {s.table()} DROP COLUMN v, ADD UNIQUE (a), ALGORITHM = COPY",
        *(each.replace("= 1", "= 0") for each in two_phase),
    ]


def alter_in_two_phases(s: Session) -> Statements:
    return ["SET SESSION binlog_alter_two_phase = 1", *alter(s), "SET SESSION binlog_alter_two_phase = 0"]


def primary_key(s: Session) -> Statements:
    return [f"ALTER TABLE {s.table()} DROP PRIMARY KEY, ADD PRIMARY KEY (id, a)"]


def index(s: Session) -> Statements:
    table = s.table()
    return [f"CREATE INDEX i ON {table} (a)", f"DROP INDEX i ON {table}"]


def versioned(s: Session) -> Statements:
    (inner,) = s.rng.choice((truncate, drop, create, alter))(s)
    number = s.rng.choice(("", "32312", "40000", "50000", "80000", "100100", "100300", "999999"))
    mark = s.rng.choice(("/*!", "/*!", "/*M!"))
    verb, _, rest = inner.partition(" ")
    return [
        s.rng.choice(
            (
                f"{mark}{number} {inner} */",
                f"{verb} {mark}{number} {rest} */",
                f"/* a */ {inner} -- b",
                f"# {s.rng.choice(TABLES)}\n{inner}",
            )
        )
    ]


def set_statement(s: Session) -> Statements:
    (inner,) = s.rng.choice((truncate, drop, alter, insert, update))(s)
    return [f"SET STATEMENT {s.rng.choice(('max_statement_time = 100', 'lock_wait_timeout=2, sort_buffer_size = 100000'))} FOR {inner}"]


def with_temporary(s: Session) -> Statements:
    """A temporary table hides a permanent one of the same name for this session."""
    name, schema = s.rng.choice(TABLES), s.schemas[0]
    table = s.table(name, schema)
    doing = (
        f"ALTER TABLE {table} DROP COLUMN a", f"TRUNCATE TABLE {table}", f"INSERT INTO {table} (id) VALUES (1)", f"DELETE FROM {table}",
        f"ALTER TABLE {table} ADD COLUMN a2 INT",
    )  # fmt: skip
    create = f"CREATE TEMPORARY TABLE {table} (id INT PRIMARY KEY, a INT, v INT)"
    drop = s.rng.choice((f"DROP TEMPORARY TABLE IF EXISTS {table}", f"DROP TEMPORARY TABLE {table}"))
    return [create, *s.rng.sample(doing, 2), drop]


def partition(s: Session) -> Statements:
    """Exchange rows between a table and a partition of another, in both directions."""
    table, parts = s.fresh(s.schemas[0]), s.table("parts", s.schemas[0])
    return [
        f"CREATE TABLE {table} (id INT PRIMARY KEY, a INT)",
        f"INSERT INTO {table} VALUES (1, 1), (2, 2)",
        f"CREATE TABLE {parts} (id INT PRIMARY KEY, a INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (50))",
        f"ALTER TABLE {parts} EXCHANGE PARTITION p0 WITH TABLE {table}",
        f"DROP TABLE {parts}" if s.rng.random() < 0.7 else f"ALTER TABLE {parts} TRUNCATE PARTITION p0",
    ]


def converted(s: Session) -> Statements:
    """MariaDB converts a partition to a table."""
    parts, table = s.table("parts2", s.schemas[0]), s.fresh(s.schemas[0])
    ranges = "PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN (9)"
    return [
        f"CREATE TABLE {parts} (id INT PRIMARY KEY, a INT) PARTITION BY RANGE (id) ({ranges})",
        f"INSERT INTO {parts} VALUES (1, 1), (2, 2)",
        f"ALTER TABLE {parts} CONVERT PARTITION p1 TO TABLE {table}",
        f"DROP TABLE {parts}",
    ]


def insert(s: Session) -> Statements:
    n = s.rng.randrange(60)
    verb = s.rng.choice(("INSERT IGNORE INTO", "REPLACE INTO", "insert ignore"))
    return [f"{verb} {s.table()} (id, a, v) VALUES ({n}, {n % 7}, {s.text()}), ({n + 1}, 3, 'w{n}')"]


def insert_select(s: Session) -> Statements:
    return [f"INSERT IGNORE INTO {s.table()} (id, a) SELECT id + {s.rng.randrange(90)}, a FROM {s.table()}"]


def update(s: Session) -> Statements:
    return [f"UPDATE {s.table()} SET a = a + {s.rng.randrange(1, 9)}, v = {s.text()} WHERE id % 3 = {s.rng.randrange(3)}"]


def update_column(s: Session) -> Statements:
    """Update a column other than those that every table has at first."""
    added = [(table, column) for table, columns in s.there.items() for column in columns if column in COLUMNS]
    table, column = s.rng.choice(added) if added else (s.rng.choice(TABLES), "a")
    return [f"UPDATE {s.table(table, s.schemas[0])} SET {s.quoted(column)} = {s.rng.randrange(99)} WHERE id > {s.rng.randrange(50)}"]


def update_two(s: Session) -> Statements:
    return [f"UPDATE {s.table()} AS p JOIN {s.table()} AS q USING (id) SET p.a = q.a + 1, q.v = 'j'"]


def delete(s: Session) -> Statements:
    return [f"DELETE FROM {s.table()} WHERE id % 5 = {s.rng.randrange(5)}"]


def transaction(s: Session) -> Statements:
    end = s.rng.choice(("COMMIT", "COMMIT", "ROLLBACK"))
    return [
        "BEGIN",
        *insert(s),
        *update(s),
        "SAVEPOINT p",
        *update(s),
        *([] if s.rng.random() < 0.5 else ["ROLLBACK TO p"]),
        *delete(s),
        end,
    ]


def heartbeat(s: Session) -> Statements:
    return [f"INSERT INTO {s.quoted(s.schemas[1])}.hb VALUES (1, {s.rng.randrange(99)}) ON DUPLICATE KEY UPDATE value = value + 1"]


def stored_code(s: Session) -> Statements:
    """A trigger, a view or a procedure of the other schema writes a followed table."""
    table, other = s.known(), s.quoted(s.schemas[1])
    trigger = f"CREATE TRIGGER {other}.tr AFTER INSERT ON {other}.hb FOR EACH ROW UPDATE {table} SET a = a + 1"
    ways = (
        [trigger, f"INSERT IGNORE INTO {other}.hb VALUES ({s.rng.randrange(10**6)}, 1)", f"DROP TRIGGER {other}.tr"],
        [f"CREATE VIEW {other}.vw AS SELECT * FROM {table}", f"UPDATE {other}.vw SET a = 8", f"DROP VIEW {other}.vw"],
        [f"CREATE PROCEDURE {other}.pr() UPDATE {table} SET a = 9", f"CALL {other}.pr()", f"DROP PROCEDURE {other}.pr"],
    )
    return s.rng.choice(ways)


def pointless(s: Session) -> Statements:
    """A statement that fails, or concerns no table."""
    return [
        s.rng.choice(
            (
                f"TRUNCATE TABLE {s.quoted('no such')}",
                f"ANALYZE TABLE {s.table()}",
                f"FLUSH TABLES {s.table()}",
                "ALTER TABLE",
                f"DROP VIEW IF EXISTS {s.table()}",
            )
        )
    ]


KINDS: tuple[Kind, ...] = (
    create, create, create_generated, create_generated, rebuild, create_like, create_as, drop, truncate, rename, swap, alter, alter,
    alter_with_text, alter_that_fails, primary_key, index, versioned, with_temporary, partition, insert, insert, insert_select, update,
    update_column, update_two, delete, transaction, heartbeat, stored_code, pointless,
)  # fmt: skip
MARIADB_KINDS: tuple[Kind, ...] = (alter_in_two_phases, set_statement, converted)
MAY_ALL_FAIL = {"alter_that_fails", "pointless"}


class Sessions:
    """Several sessions on the project's server, and counts of what they did."""

    def __init__(self, project: Project, seed: int) -> None:
        self._project, self.rng = project, random.Random(seed)
        self.mariadb = project.admin.is_mariadb
        self.kinds = (*KINDS, *MARIADB_KINDS) if self.mariadb else KINDS
        self.schemas = (project.database, f"{project.database}_y")
        self._charsets = sorted(
            {name for name, *_ in project.admin.rows("SHOW CHARACTER SET")} - set(UNFIT_CHARSETS)
        )  # fmt: skip
        self._sessions: list[Session] = []
        self._due: deque[Kind] = deque()
        self.taken: Counter[str] = Counter()
        """How many statements the server took, by kind."""
        self.log: deque[str] = deque(maxlen=2000)
        self._numbers = itertools.count()

    def close(self) -> None:
        for session in self._sessions:
            session.connection.close()

    @property
    def missing(self) -> set[str]:
        """The kinds of statement that the server has not accepted yet, though it should."""
        return {kind.__name__ for kind in self.kinds if not self.taken[kind.__name__]} - MAY_ALL_FAIL

    def step(self) -> None:
        """One kind of statement by one of the sessions; the server may refuse it."""
        if not self._due:
            self._due.extend(self.rng.sample(self.kinds, len(self.kinds)))
        if len(self._sessions) < 4:
            self._sessions.append(self._begun())
        at = self.rng.randrange(len(self._sessions))
        if self.rng.random() < 0.1:
            self._sessions.pop(at).connection.close()
            return
        session, kind = self._sessions[at], self._due.popleft()
        session.there = self._there()
        if self.rng.random() < 0.5:
            self._settings(session)
        took = [self._run(session, statement) for statement in kind(session)]
        self.taken[kind.__name__] += sum(took)

    def _there(self) -> dict[str, list[str]]:
        rows = self._project.admin.rows(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2", (self.schemas[0],)
        )
        return {name: [column for _, column in columns] for name, columns in itertools.groupby(rows, lambda row: row[0]) if name != "stays"}

    def _begun(self) -> Session:
        connection = connect(self._project.source)
        connection.query("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
        return Session(connection, self.rng, self.schemas, self.mariadb)

    def _settings(self, session: Session) -> None:
        """Change the session's settings."""
        rng = self.rng
        modes = rng.sample(MODES + (MARIADB_MODES if self.mariadb else ()), rng.choice((0, 0, 1, 2, 3)))
        session.charset = "utf8mb4"
        self._run(session, f"SET NAMES utf8mb4, SESSION sql_mode = '{','.join(modes)}'")
        ((mode,),) = session.connection.rows("SELECT @@sql_mode")
        session.ansi, session.backslash = "ANSI_QUOTES" in str(mode), "NO_BACKSLASH_ESCAPES" not in str(mode)
        self._run(
            session, f"SET SESSION time_zone = '{rng.choice(('+00:00', '+05:00'))}', lc_time_names = '{rng.choice(('en_US', 'de_DE'))}'"
        )
        self._run(session, f"SET SESSION div_precision_increment = {rng.choice((4, 10))}, default_week_format = {rng.choice((0, 3))}")
        copying = "alter_algorithm = {}" if self.mariadb else "old_alter_table = {}"
        self._run(session, f"SET SESSION {copying.format(rng.choice(('DEFAULT', 'COPY' if self.mariadb else 'ON')))}")
        self._run(session, f"SET SESSION binlog_format = {rng.choice(('ROW', 'ROW', 'ROW', 'MIXED', 'STATEMENT'))}")
        session.default = rng.choice((self.schemas[0], self.schemas[0], self.schemas[1]))
        session.connection.select_db(session.default)
        charset = rng.choice((*("utf8mb4",) * 20, *self._charsets))
        if self._run(session, f"SET NAMES {charset}, character_set_results = utf8mb4"):
            session.charset = charset

    def _run(self, session: Session, statement: str) -> bool:
        """Send the statement in the session's character set, if that has all its characters; whether the server accepted it."""
        data = self._encoded(statement, session.charset)
        if data is None:
            return False
        self.log.append(f"{next(self._numbers)} [{id(session) % 1000} {session.charset} {session.default[-2:]}] {statement}")
        try:
            session.connection.query(data)
        except pymysql.MySQLError as error:
            assert session.connection.open, error
            self.log[-1] += f"   -- {error.args[0]}"
            return False
        return True

    def _encoded(self, statement: str, charset: str) -> bytes | None:
        if charset == "utf8mb4":
            return statement.encode()
        ((there, back),) = self._project.admin.rows(
            f"SELECT HEX(CONVERT(_utf8mb4 X'{statement.encode().hex()}' USING {charset})), "
            f"HEX(CONVERT(CONVERT(_utf8mb4 X'{statement.encode().hex()}' USING {charset}) USING utf8mb4))"
        )
        return bytes.fromhex(there) if bytes.fromhex(back) == statement.encode() else None


@pytest.fixture
def project(project_on_either: Project) -> Iterator[Project]:
    """Tables migrated by a pattern, one of which always stays, and a schema that is not followed."""
    made = project_on_either
    other = f"{made.database}_y"
    made.sql(
        f"CREATE DATABASE {other}", f"CREATE TABLE {other}.hb (id INT PRIMARY KEY, value INT)", "CREATE TABLE stays (id INT PRIMARY KEY)"
    )
    for name in TABLES[::2]:
        quoted = "`" + name.replace("`", "``") + "`"
        made.sql(f"CREATE TABLE {quoted} (id INT PRIMARY KEY, a INT, v VARCHAR(40) CHARACTER SET utf8mb4)")
        made.sql(f"INSERT INTO {quoted} (id, a) VALUES (1, 1), (2, 1), (3, 3)")
    yield made
    made.sql(f"DROP DATABASE {other}")


@pytest.mark.timeout(200 + 2 * STATEMENTS)
def test_statements_of_all_sessions_are_followed_through_kills(project: Project):
    """Every round is compared byte for byte, and the server accepted every kind of statement at least once."""
    print(f"CDC_SESSIONS_SEED={SEED}")
    pattern, sessions = f"{project.database}.*", Sessions(project, SEED)
    rng = random.Random(SEED)
    try:
        while sessions.taken.total() < STATEMENTS or (sessions.missing and sessions.taken.total() < 3 * STATEMENTS):
            sessions.log.clear()
            with project.interrupted(rng, table=pattern):
                until = sessions.taken.total() + rng.choice(PER_ROUND)
                while sessions.taken.total() < until:
                    sessions.step()
                    time.sleep(rng.choice((0, 0, 0.02, 0.1)))
            for _ in range(rng.choice((0, 0, 5))):
                sessions.step()
            project.migrate(table=pattern)
            project.assert_all_identical()
    except BaseException:
        print("\n".join(sessions.log))
        raise
    finally:
        sessions.close()
    assert not sessions.missing
