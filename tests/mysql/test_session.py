"""What a server's settings do to our sessions: either they have no effect, or the migration is refused with the variable's name."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import pytest

from cdc import config
from cdc.errors import PreflightFailed
from cdc.mysql import session
from cdc.mysql.connection import connect
from cdc.sandbox import Sandbox
from tests.mysql.hostile_settings import DATABASE, HostileServer, Value

TOGETHER = int(os.environ.get("CDC_VARIABLES_TOGETHER", "12"))
"""Variables that are turned in one migration. With 1, as `make soak` has it, each is tried alone."""

AT_ONCE = int(os.environ.get("CDC_VARIABLES_ROUNDS", "8"))
"""Migrations with random values of all variables at once."""

NOT_AT_ONCE = {"connection_memory_limit", "max_session_mem_used"}
"""Beside large buffers MySQL closes every connection for the first without a word, and MariaDB 10.11 crashes for the second."""

SEED = int(os.environ.get("CDC_VARIABLES_SEED", "1"))

REFUSED = {"binlog_format", "binlog_row_image", "max_user_connections"}
"""Preflight asks for the first two; the third leaves no room for the connections that are needed."""

WITHOUT_A_HOSTILE_VALUE = {
    "mysql": {
        "external_table_secondary_storage_engine",
        "external_table_storage_engine",
        "gtid_owned",
        "innodb_ft_user_stopword_table",
        "rbr_exec_mode",
    },
    "mariadb": {
        "innodb_ft_user_stopword_table",
        "sql_log_bin",
        "tcp_nodelay",
        "wsrep_on",
        "wsrep_trx_fragment_size",
        "wsrep_trx_fragment_unit",
    },
}
"""The server lets nobody set their global values, or to nothing else than what they are without more of a server."""

OPTIONS = {"max-user-connections": 1000}  # MariaDB lets it be changed only where it is not 0


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    """A server of its own, whose settings are changed."""
    with Sandbox.start(request.param, options=OPTIONS) as started:
        made = HostileServer(started)
        yield made
        made.admin.close()


def groups(variables: Mapping[str, list[Value]]) -> Iterator[dict[str, Value]]:
    """Every value of every variable, several variables at a time with one value of each."""
    rounds = max(map(len, variables.values()))
    for number in range(rounds):
        values = iter([(name, each[number]) for name, each in sorted(variables.items()) if number < len(each)])
        while some := dict(islice(values, TOGETHER)):
            yield some


def refusals(run: Callable[[Mapping[str, Value]], object], values: dict[str, Value]) -> set[str]:
    """Variables for which a migration is refused, by name; under all others its result is identical."""
    refused: set[str] = set()
    while error := run({name: value for name, value in values.items() if name not in refused}):
        named = {name for name in values if name in str(error)} - refused
        assert named, f"under {values}: {error!r}"
        refused.add(max(named, key=len))
    return refused


@pytest.mark.timeout(3600)  # `make soak`
def test_server_variables_do_not_change_the_result(server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile values of each, a few at a time, then random ones of all at once: identical, or refused by the variable's name."""
    monkeypatch.setattr(config, "AWAY_SECONDS", 30.0)
    variables = server.variables()
    assert len(variables) > 130
    refused: set[str] = set()
    for values in groups(variables):
        refused |= refusals(lambda values: server.run(tmp_path, values), values)
    assert refused == REFUSED
    assert variables.keys() - server.turned_once == WITHOUT_A_HOSTILE_VALUE[server.flavor]
    print(f"CDC_VARIABLES_SEED={SEED}")
    rng = random.Random(SEED)
    for _ in range(AT_ONCE):
        values = {name: rng.choice(each) for name, each in variables.items() if name not in REFUSED | NOT_AT_ONCE}
        at_once = refusals(lambda values: server.run(tmp_path, values), values)
        assert at_once <= {"max_allowed_packet"}, values


@pytest.mark.parametrize(
    "statement",
    [
        "SET autocommit = 0",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
        "SET NAMES latin1, sql_select_limit = 3, sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', time_zone = '+05:00', timestamp = 1",
        f"USE {DATABASE}; SELECT * FROM types",
    ],
)
def test_init_connect_has_no_effect(server: HostileServer, tmp_path: Path, statement: str) -> None:
    """The server runs it before our first statement for every user without a special right."""
    assert server.run(tmp_path, {"init_connect": statement}) is None


def test_failing_init_connect_is_named(server: HostileServer, tmp_path: Path) -> None:
    """The server only closes the connection."""
    error = server.run(tmp_path, {"init_connect": "SELECT no_such_function()"})
    assert isinstance(error, PreflightFailed)
    assert "init_connect" in str(error)


@pytest.mark.parametrize(("name", "value", "why"), [("sql_log_bin", 0, "Access denied"), ("max_sort_length", 1, "another value")])
def test_unsettable_variable_is_refused_by_name(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, name: str, value: int, why: str
) -> None:
    """Because of a missing right, or because the server changes the value; with exit code 3."""
    monkeypatch.setitem(session._EVERY, name, value)
    with pytest.raises(PreflightFailed, match=f"variable {name}.*{why}"):
        connect(server.source)


def test_variable_with_the_right_value_is_not_set(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that the server does not have is not set either."""
    monkeypatch.setitem(session._EVERY, "sql_log_bin", 1)
    monkeypatch.setitem(session._EVERY, "no_such_variable", 1)
    connection = connect(server.source)
    assert connection.one("SELECT @@session.max_sort_length") == (session._EVERY["max_sort_length"],)
    assert session._missing[connection.get_server_info()] >= {"no_such_variable"}
    connection.abandon()


def test_server_without_an_isolation_variable_is_refused(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session reads never depends on the server's own setting."""
    monkeypatch.setitem(session._missing, server.admin.get_server_info(), {"transaction_isolation", "tx_isolation"})
    with pytest.raises(PreflightFailed, match="variable transaction_isolation"):
        connect(server.source)
