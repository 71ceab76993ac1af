"""Values at the edge, from real tables: text of every character set, numbers with all of their digits."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

import cdc
from cdc.model import TableId, charset
from tests.charset_tables import names
from tests.fix_migration import Project


def printed(project: Project, *arguments: str) -> list[str]:
    done = project.cdc(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def dumped(project: Project, *options: str) -> list[str]:
    return printed(project, "dump", f"mapstore:{project.state}", str(project.table), *options)


def followed(project: Project, since: object, *options: str) -> list[dict[str, object]]:
    arguments = ("tail", project.url, "--tables", str(project.table), "--from", str(since), "--until-caught-up", *options)
    return [json.loads(line) for line in printed(project, *arguments)]


SAMPLE = "aé€漢碁갂①Ä\x81Č Ωմაאญжşė"


def in_set(text: str, name: str) -> str:
    """The characters of a text that the character set has."""
    try:
        charset.encode(text, name)
    except UnicodeEncodeError:
        return "".join(in_set(character, name) for character in text) if len(text) > 1 else ""
    return text


def test_text_prints_as_the_server_converts_it(project_on_either: Project) -> None:
    """Copied and streamed rows of every character set, dumped as JSON and TSV, and tailed."""
    project = project_on_either
    with project.admin.cursor() as cursor:
        texts = {name: in_set(SAMPLE, name) for name in names(cursor)}
    columns = ", ".join(f"{name} VARCHAR(40) CHARACTER SET {name}" for name in texts)
    values = ", ".join(f"'{text}'" for text in texts.values())
    project.sql(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})", f"INSERT INTO t VALUES (1, {values})")
    start = project.gtids()
    project.migrate()
    project.sql(f"INSERT INTO t VALUES (2, {values})")
    project.migrate()
    rows = [{"id": 1, **texts}, {"id": 2, **texts}]
    assert sorted(map(json.loads, dumped(project)), key=lambda row: row["id"]) == rows
    expected = {"\t".join(map(str, row.values())) for row in rows}
    assert set(dumped(project, "--format", "tsv")[1:]) == expected
    assert [change["after"] for change in followed(project, start)] == rows[1:]


def test_undecodable_bytes_are_distinct_from_text(project_on_either: Project) -> None:
    """big5 has no character F9FE, and text may look like any of the forms in which such bytes are shown."""
    project = project_on_either
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(40) CHARACTER SET big5)",
        "INSERT INTO t VALUES (1, _big5 X'F9FE'), (2, '0xf9fe'), (3, '\\\\xf9fe'), (4, '{\"invalid\": \"0xf9fe\"}')",
    )
    project.migrate()
    shown = {row["id"]: row["v"] for row in map(json.loads, dumped(project))}
    assert shown == {1: {"invalid": "0xf9fe"}, 2: "0xf9fe", 3: "\\xf9fe", 4: '{"invalid": "0xf9fe"}'}
    assert set(dumped(project, "--format", "tsv")) == {
        "id\tv", "1\t\\xf9fe", "2\t0xf9fe", "3\t\\\\xf9fe", '4\t{"invalid": "0xf9fe"}',
    }  # fmt: skip


@pytest.mark.parametrize("project_on_either", ["mariadb"], indirect=True)
def test_surrogate_names_stop_only_their_own_tables(project_on_either: Project) -> None:
    """MariaDB accepts such names; the other tables are followed, and binlog rows of these are skipped."""
    project = project_on_either
    weird = "`u\ud800`"
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY)", f"CREATE TABLE {weird} (id INT PRIMARY KEY)", "CREATE TABLE v (`\ud800` INT PRIMARY KEY)"
    )
    project.sql("INSERT INTO t VALUES (1)")
    done = project.cdc(*project.arguments("--until-caught-up", table=f"{project.database}.*"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("surrogate") == 2
    project.sql(f"INSERT INTO {weird} VALUES (1)", "INSERT INTO v VALUES (1)", "INSERT INTO t VALUES (2)")
    done = project.cdc(*project.arguments("--until-caught-up", table=f"{project.database}.*"))
    assert done.returncode == 0, done.stderr
    assert project.assert_identical() == 2


@pytest.mark.parametrize("project_on_either", ["mariadb"], indirect=True)
def test_surrogates_are_shown_as_bytes(project_on_either: Project) -> None:
    """UTF-8 cannot encode them, so a line cannot hold them."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET utf8mb4)", "INSERT INTO t VALUES (1, X'EDA080')")
    project.migrate()
    assert [json.loads(line) for line in dumped(project)] == [{"id": 1, "v": {"invalid": "0xeda080"}}]


ROWS = 4_000
"""For each of three members: the first chunk ends within the second."""
EXACT = "1.23456789012345678901"
NUMBERS = (
    f"CAST('{EXACT}' AS DECIMAL(30,20)), 18446744073709551615, -9223372036854775808, 1e300, CAST('-0.0' AS JSON), 1.0, 0.1, "
    "CAST('1.50' AS DECIMAL(9,2))"
)
"""Of which a double would keep the last five."""


def test_numbers_in_json_keep_their_digits(project: Project) -> None:
    """As the server prints them, copied and streamed; parsed for Python they are Decimal where a float would round."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, doc JSON)", f"INSERT INTO t VALUES (1, JSON_OBJECT('a', JSON_ARRAY({NUMBERS})))")
    start = project.gtids()
    project.migrate()
    project.sql("INSERT INTO t SELECT 2, doc FROM t")
    project.migrate()
    document = project.admin.one("SELECT doc FROM t LIMIT 1")[0]
    assert EXACT in document
    assert set(dumped(project)) == {f'{{"id": {n}, "doc": {document}}}' for n in (1, 2)}
    (line,) = printed(project, "tail", project.url, "--tables", str(project.table), "--from", str(start), "--until-caught-up")
    assert f'"after": {{"id": 2, "doc": {document}}}' in line
    with cdc.changes(project.source, [project.table], after=start, until_caught_up=True, parse_json=True) as changes:
        (change,) = changes
    assert change.after is not None
    parsed = change.after["doc"]["a"]  # type: ignore[index]
    assert parsed == [Decimal(EXACT), 18446744073709551615, -9223372036854775808, 1e300, 0.0, 1.0, 0.1, 1.5]
    assert [type(value) for value in parsed] == [Decimal, int, int, float, float, float, float, float]
    assert str(parsed[4]) == "-0.0"


def test_bigint_is_text_on_request(project_on_either: Project) -> None:
    """In rows, changes and envelopes; other numbers stay numbers."""
    project = project_on_either
    project.sql(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, u BIGINT UNSIGNED, z BIGINT(20) ZEROFILL, n INT)",
        "INSERT INTO t VALUES (-9223372036854775808, 18446744073709551615, 7, 8)",
    )
    start = project.gtids()
    project.migrate()
    as_text = {"id": "-9223372036854775808", "u": "18446744073709551615", "z": "7", "n": 8}
    as_numbers = {"id": -9223372036854775808, "u": 18446744073709551615, "z": 7, "n": 8}
    assert list(map(json.loads, dumped(project, "--numbers", "text"))) == [as_text]
    assert list(map(json.loads, dumped(project))) == [as_numbers]
    project.sql("DELETE FROM t")
    assert [each["before"] for each in followed(project, start, "--numbers", "text")] == [as_text]
    assert [each["before"] for each in followed(project, start, "--numbers", "text", "--format", "debezium")] == [as_text]
    assert [each["before"] for each in followed(project, start)] == [as_numbers]


def test_default_unreadable_in_information_schema_is_not_guessed(project_on_either: Project) -> None:
    """It shows characters beyond U+FFFF as question marks; the rows hold the characters."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    project.migrate()
    project.sql("ALTER TABLE t ADD COLUMN v VARCHAR(9) CHARACTER SET utf8mb4 DEFAULT '😀x'", "INSERT INTO t (id) VALUES (3)")
    project.migrate()
    assert project.assert_identical() == 3
    assert all(json.loads(line)["v"] == "😀x" for line in dumped(project))


def test_set_members_are_separated_in_their_character_set(project_on_either: Project) -> None:
    """A comma in utf16 has two bytes, also in rows of the stream."""
    project = project_on_either
    sets = ("utf16", "utf16le", "utf32", "ucs2", "utf8mb4", "swe7")
    columns = ", ".join(f"{name} SET('a', 'b', 'c') CHARACTER SET {name}" for name in sets)
    project.sql(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})")
    project.migrate()
    for number, value in enumerate(("a,b,c", "")):
        values = ", ".join([f"'{value}'"] * len(sets))
        project.sql(f"INSERT INTO t VALUES ({number}, {values})")
    project.migrate()
    assert project.assert_identical() == 2
    assert {row["utf16"] for row in map(json.loads, dumped(project))} == {"a,b,c", ""}


def test_keys_of_enum_are_read_in_every_character_set(project_on_either: Project) -> None:
    """A chunk continues after the last member's number; members with characters that information_schema cannot show are refused."""
    project = project_on_either
    project.sql("CREATE TABLE t (k ENUM('a', 'Ä', 'c') CHARACTER SET swe7, n INT, PRIMARY KEY (k, n))")
    rows = ", ".join(f"('{label}', {n})" for label in "aÄc" for n in range(ROWS))
    project.sql(f"INSERT INTO t VALUES {rows}")
    project.migrate()
    assert project.assert_identical() == 3 * ROWS
    project.sql("CREATE TABLE s (k SET('a', 'b', 'c') CHARACTER SET utf16, n INT, PRIMARY KEY (k, n))")
    project.sql(f"INSERT INTO s VALUES {rows.replace('Ä', 'a,b')}")
    project.migrate(table=f"{project.database}.s")
    assert project.assert_identical(TableId(project.database, "s")) == 3 * ROWS
    project.sql("CREATE TABLE u (k ENUM('a', '😀') CHARACTER SET utf8mb4 PRIMARY KEY)", "INSERT INTO u VALUES ('a'), ('😀')")
    done = project.cdc(*project.arguments("--until-caught-up", table=f"{project.database}.u"))
    assert done.returncode == 3
    assert "question mark" in done.stderr
