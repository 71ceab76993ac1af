"""The variables that every session on the source sets, so that results do not depend on the server, on init_connect, or on the account.

They are those that can change the rows of a SELECT, hide or shorten a result, end a statement or a connection, or change what our
statements write. Every variable is read back after it was set; one that the server does not have is left out. Global settings that a source
needs are checked by preflight.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Protocol

import pymysql

from cdc.errors import PreflightFailed

_MOST = 2**64 - 1
_DEFAULT = object()
"""The server's built-in value, for a variable whose built-in value has no literal. It is not the global value."""

_Value = int | str | object | None

_TEXT: Mapping[str, _Value] = {
    # a SELECT gives the bytes that are stored, as the binlog does
    "character_set_client": "utf8mb4",
    "character_set_connection": "utf8mb4",
    "collation_connection": "utf8mb4_general_ci",
    "character_set_results": None,
}
# Most of what follows can be shown on a server. Set because of what the manuals say of them: unique_checks (InnoDB may leave checks out),
# the waits for locks and for an idle or slow client (they show in time alone), use_secondary_engine (HeatWave alone has one,
# and only init_connect can set it), wsrep_dirty_reads (rows of a Galera node without quorum), old (other use of index hints).
_EVERY: Mapping[str, _Value] = {
    # values: no padding, zero dates allowed, quotes and backslashes as written here, times in UTC, error texts in English
    "sql_mode": "NO_ENGINE_SUBSTITUTION",
    "time_zone": "+00:00",
    "lc_messages": "en_US",
    # all rows, found and sorted by whole keys
    "sql_select_limit": _MOST,
    "sql_big_selects": 1,
    "sql_auto_is_null": 0,
    "max_sort_length": 8192,
    "sort_buffer_size": 1 << 20,
    "sql_buffer_result": 0,
    # transactions see committed rows, and begin and end by our statements; in other isolation levels MariaDB opens no consistent snapshot
    "transaction_isolation": "REPEATABLE-READ",
    "transaction_read_only": 0,
    "autocommit": 1,
    "completion_type": "NO_CHAIN",
    # writes, of `cdc compare --churn`
    "foreign_key_checks": 1,
    "unique_checks": 1,
    "sql_safe_updates": 0,
    "innodb_lock_wait_timeout": 50,
    # idle connections and slow readers are not disconnected
    "wait_timeout": 28_800,
    "net_read_timeout": 60,
    "net_write_timeout": 3600,
}
_MYSQL: Mapping[str, _Value] = {
    "max_execution_time": 0,
    "range_optimizer_max_mem_size": 8 << 20,  # with less, a chunk's condition is not seen as a range, and the table is read from its start
    "show_gipk_in_create_table_and_information_schema": 1,
    "use_secondary_engine": "OFF",  # a secondary engine shows changes later than InnoDB does
}
_MARIADB: Mapping[str, _Value] = {
    "tx_isolation": "REPEATABLE-READ",  # before 11.1 the only name for it
    "tx_read_only": 0,
    "max_statement_time": 0,
    "idle_transaction_timeout": 0,
    "idle_readonly_transaction_timeout": 0,
    "idle_write_transaction_timeout": 0,
    "system_versioning_asof": _DEFAULT,
    "query_cache_type": "OFF",
    "wsrep_dirty_reads": 0,
    "old": 0,
    "old_mode": "",
    "check_constraint_checks": 1,
    "max_session_mem_used": 2**63 - 1,  # the server takes more for a negative number
    "tmp_disk_table_size": _MOST,
}

_ISOLATION = {"transaction_isolation", "tx_isolation"}
"""The server must have one of them: the isolation level is never left to its default."""

_UNKNOWN_VARIABLE = 1193


class NewConnection(Protocol):
    """A connection whose session is to be set up."""

    host: str

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB."""

    def get_server_info(self) -> str:
        """The server's version string."""

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """All rows of a query."""


_missing: dict[str, set[str]] = {}
"""By the server's version, the variables that it does not have."""


def prepare(session: NewConnection, answer_seconds: float) -> None:
    """Set the session's variables and read them back. Raises PreflightFailed with the name of one that keeps another value.

    `answer_seconds` bounds the wait for an answer; the server's wait for a lock is set to less.
    """
    session.rows("ROLLBACK AND NO CHAIN NO RELEASE")  # a transaction that init_connect may have begun
    wanted = {**_TEXT, **variables(session, answer_seconds)}
    missing = _missing.setdefault(session.get_server_info(), set())
    while True:
        settable = {name: value for name, value in wanted.items() if name not in missing}
        try:
            session.rows(_statement(settable))
            break
        except pymysql.MySQLError as error:
            unknown = _unknown(error, settable)
            if unknown is None:
                _set_one_by_one(session, settable)
                break
            missing.add(unknown)
    if settable.keys().isdisjoint(_ISOLATION):
        raise _refused(session, "transaction_isolation", "the server does not have it")
    different = _different(session, settable)
    if different:
        raise _refused(session, different[0], "it keeps another value than the one that was set")


def variables(session: NewConnection, answer_seconds: float) -> dict[str, _Value]:
    """The variables and their values, except those of character sets."""
    return {**_EVERY, **(_MARIADB if session.is_mariadb else _MYSQL), "lock_wait_timeout": max(1, int(answer_seconds) - 1)}


def _statement(wanted: Mapping[str, _Value]) -> str:
    """SET NAMES comes first: the values that follow are in its character set."""
    assigned = [f"{name} = {_literal(value)}" for name, value in wanted.items() if name not in _TEXT]
    return ", ".join(["SET NAMES utf8mb4 COLLATE utf8mb4_general_ci", "SESSION character_set_results = NULL", *assigned])


def _literal(value: _Value) -> str:
    if value is _DEFAULT:
        return "DEFAULT"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _unknown(error: pymysql.MySQLError, names: Mapping[str, _Value]) -> str | None:
    """The variable that the server does not know, by its error."""
    if error.args[0] != _UNKNOWN_VARIABLE:
        return None
    return next((name for name in names if f"'{name}'" in str(error.args[1])), None)


def _set_one_by_one(session: NewConnection, wanted: Mapping[str, _Value]) -> None:
    """Set the variables one by one, where the server refuses them together. One that cannot be set may have the value already."""
    session.rows(_statement({}))
    refused: dict[str, pymysql.MySQLError] = {}
    for name, value in wanted.items():
        if name not in _TEXT:
            try:
                session.rows(f"SET SESSION {name} = {_literal(value)}")
            except pymysql.MySQLError as error:
                refused[name] = error
    for name in _different(session, {name: wanted[name] for name in refused}):
        raise _refused(session, name, str(refused[name].args[1])) from refused[name]


def _different(session: NewConnection, wanted: Mapping[str, _Value]) -> list[str]:
    """The variables that have another value than wanted."""
    if not wanted:
        return []
    (shown,) = session.rows(f"SELECT {', '.join(f'@@session.{name}' for name in wanted)}")
    return [name for (name, value), now in zip(wanted.items(), shown, strict=True) if _normal(now) != _normal(value)]


def _normal(value: object) -> object:
    """A value in the form in which values are compared: numbers as numbers, however they are written."""
    if value is None:
        return None
    if value is _DEFAULT:
        return "DEFAULT"
    text = value.decode() if isinstance(value, bytes) else str(value)
    with suppress(InvalidOperation):
        return Decimal(text)
    return text


def _refused(session: NewConnection, name: str, why: str) -> PreflightFailed:
    return PreflightFailed(
        f"A session on {session.host} cannot be set up, because of its variable {name}: {why}.",
        hint=f"Let the user of the source set {name}, and see whether a proxy or init_connect sets it too.",
    )
