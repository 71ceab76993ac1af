"""Preflight: a list of named checks whether a source allows a migration. Each says what is, what is needed, and how to get there.

A check with a problem stops a migration; a check that could not be made is `unknown` and does not. Rights are checked by running a
statement that needs them, so roles count as the server counts them. `cdc check` shows the list; a migration calls `require`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cdc.errors import NoSuchTable, PreflightFailed
from cdc.model import TableId
from cdc.model.selection import Selection, skip_reason
from cdc.mysql.connection import Connection, text
from cdc.mysql.preflight import mariadb
from cdc.mysql.preflight.checks import Check, CheckedServer, Outcome, count, made
from cdc.mysql.preflight.tables import ALL_TABLES, check_patterns, check_tables, not_copied
from cdc.mysql.privileges import account

__all__ = ["Check", "Outcome", "examine", "not_copied", "of_tables", "require", "run", "skipped", "warnings"]

OLDEST_VERSION = (8, 0, 14)
LEAST_RETENTION = 3600
"""Seconds of binlog that let a person notice a failed migration and resume it. With fewer, a failure costs a full copy."""


def run(connection: Connection, tables: Sequence[TableId], selection: Selection | None = None) -> list[Check]:
    """All checks of the server, then those of the tables, which may be patterns. Only the first check, if the server's version fails it.

    `selection` says which tables are named in full, and which are excluded; by default it is `tables`. A check whose query the server
    refuses is `unknown`. Raises PyMySQL's error when the connection breaks.
    """
    version = text(connection.one("SELECT VERSION()")[0])
    checks = [_check_version(version)]
    if checks[0].status is not Outcome.OK:
        return checks
    server = _server(connection)
    variables = server.variables
    mariadb = connection.is_mariadb
    checks += (setting.check(variables) for setting in _SETTINGS if setting.name not in (_MYSQL_ONLY if mariadb else _MARIADB_ONLY))
    checks += (made(name, server, check) for name, check in (_MARIADB_CHECKS if mariadb else _CHECKS).items())
    checks += _checks_of_tables(server, tables, selection or Selection(tuple(tables)))
    return [_without_persist(check) for check in checks] if mariadb else checks


def of_tables(connection: Connection, tables: Sequence[TableId], selection: Selection) -> list[Check]:
    """The checks of tables and patterns alone, on a server that has passed its own; raises as `run` does."""
    checks = _checks_of_tables(_server(connection), tables, selection)
    return [_without_persist(check) for check in checks] if connection.is_mariadb else checks


def _checks_of_tables(server: CheckedServer, tables: Sequence[TableId], selection: Selection) -> list[Check]:
    return [*(check_tables(server, tables, selection) if tables else ()), *check_patterns(server, selection)]


def _server(connection: Connection) -> CheckedServer:
    variables = {str(name): str(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES")}
    version = variables.get("version") or text(connection.one("SELECT VERSION()")[0])  # a damaged answer may lack the row
    return CheckedServer(connection, _version_numbers(version), variables, account(connection))


def examine(connection: Connection, table: TableId) -> None:
    """Raise PreflightFailed if this table cannot be migrated, NoSuchTable if it is missing. For a table that a statement has changed."""
    checks = list(check_tables(_server(connection), [table], Selection((table,))))
    for check in checks:
        if check.missing:
            raise NoSuchTable(check.message, hint=check.hint)
    require(checks)


def warnings(checks: Iterable[Check]) -> list[str]:
    """The warnings that a run prints when it begins: where the user may lack rights to see all matching tables."""
    return [f"warning: {check.message} {check.hint}" for check in checks if check.name == ALL_TABLES and check.status is not Outcome.OK]


def skipped(checks: Iterable[Check]) -> dict[TableId, str]:
    """The tables that are skipped, each with all of its problems as one text."""
    problems: dict[TableId, list[str]] = {}
    for check in checks:
        if check.table and check.status is Outcome.SKIPPED:
            problems.setdefault(check.table, []).append(check.message)
    return {table: skip_reason(table, " ".join(messages)) for table, messages in problems.items()}


def _without_persist(check: Check) -> Check:
    """The check with a hint for MariaDB, which has no SET PERSIST."""
    if "SET PERSIST" not in check.hint:
        return check
    hint = check.hint.replace("SET PERSIST", "SET GLOBAL")
    return replace(check, hint=f"{hint} Write it under [mysqld] in my.cnf too, so that a restart keeps it.")


def prepared_xa(connection: Connection) -> Check:
    """The check for prepared XA transactions alone, for a copy whose position is known: only a transaction prepared before it matters."""
    check = mariadb.check_xa if connection.is_mariadb else _check_xa
    return made("prepared_xa", CheckedServer(connection, (), {}, account(connection)), check)


def require(checks: Iterable[Check]) -> None:
    """Raise PreflightFailed with all problems, if any check has one. Warnings and unknown checks pass."""
    problems = [check for check in checks if check.status is Outcome.PROBLEM]
    if len(problems) == 1:
        raise PreflightFailed(problems[0].message, hint=problems[0].hint)
    if problems:
        lines = [f"\n  {check.name}: {check.message} {check.hint}".rstrip() for check in problems]
        raise PreflightFailed(f"The source is not ready, {len(problems)} checks found a problem." + "".join(lines))


def _check_version(version: str) -> Check:
    if "mariadb" in version.lower():
        if _version_numbers(version) < mariadb.OLDEST_VERSION:
            return Check(
                "version",
                Outcome.PROBLEM,
                f"The source is MariaDB {version}; full row metadata in the binlog needs MariaDB 10.5 or newer.",
                "Upgrade the source, or migrate from a replica of it that runs a newer version.",
            )
        return Check("version", Outcome.OK, f"The source is MariaDB {version}.")
    if _version_numbers(version) < OLDEST_VERSION:
        return Check(
            "version",
            Outcome.PROBLEM,
            f"The source is MySQL {version}; full row metadata in the binlog needs MySQL 8.0.14 or newer.",
            "Upgrade the source, or migrate from a replica of it that runs a newer version.",
        )
    return Check("version", Outcome.OK, f"The source is MySQL {version}.")


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


@dataclass(frozen=True, slots=True)
class _Setting:
    """A global variable that must have one value."""

    name: str
    needed: str
    why: str
    hint: str

    def check(self, variables: Mapping[str, str]) -> Check:
        value = variables.get(self.name)
        if value is None:
            return Check(self.name, Outcome.UNKNOWN, f"This server has no {self.name}; it should be {self.needed}.")
        if value == self.needed:
            return Check(self.name, Outcome.OK, f"{self.name} is {value}.")
        return Check(self.name, Outcome.PROBLEM, f"{self.name} is {value}; it must be {self.needed}, because {self.why}.", self.hint)


_RECONNECT = "Then let the application reconnect: sessions keep the value they began with."

_SETTINGS = (
    _Setting(
        "log_bin",
        "ON",
        "changes are read from the binary log",
        "Under [mysqld] in my.cnf write log_bin=binlog, without skip-log-bin, and restart the server.",
    ),
    _Setting(
        "binlog_format",
        "ROW",
        "other formats hold statements instead of the rows that changed",
        f"SET PERSIST binlog_format = ROW; {_RECONNECT}",
    ),
    _Setting(
        "binlog_row_image",
        "FULL",
        "other images leave out columns of the rows that changed",
        f"SET PERSIST binlog_row_image = FULL; {_RECONNECT}",
    ),
    _Setting(
        "binlog_row_metadata",
        "FULL",
        "otherwise the binlog does not name the columns of the rows that changed",
        "SET PERSIST binlog_row_metadata = FULL;",
    ),
    _Setting(
        "binlog_order_commits",
        "ON",
        "otherwise gtid_executed can for a moment hold a transaction without one it depends on, and a copy begun then misses that one",
        "SET PERSIST binlog_order_commits = ON;",
    ),
    _Setting(
        "binlog_optimize_thread_scheduling",
        "ON",
        "otherwise a group of transactions becomes visible one by one, and a copy's view may hold a part of it",
        "Under [mysqld] in my.cnf remove skip-binlog-optimize-thread-scheduling, and restart the server.",
    ),
    _Setting(
        "enforce_gtid_consistency",
        "ON",
        "GTIDs need it",
        "SET PERSIST enforce_gtid_consistency = WARN; and when the error log stays silent for a while: "
        "SET PERSIST enforce_gtid_consistency = ON;",
    ),
)
_MYSQL_ONLY = {"binlog_order_commits", "enforce_gtid_consistency"}
_MARIADB_ONLY = {"binlog_optimize_thread_scheduling"}


def _check_gtid_mode(server: CheckedServer) -> Check:
    """The server raises gtid_mode one step at a time, so the hint depends on the current mode."""
    steps = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"]
    mode = server.variables.get("gtid_mode", "OFF")
    if mode == "ON":
        return Check("gtid_mode", Outcome.OK, "gtid_mode is ON.")
    hint = " ".join(f"SET PERSIST gtid_mode = {step};" for step in steps[steps.index(mode) + 1 :])
    return Check(
        "gtid_mode",
        Outcome.PROBLEM,
        f"gtid_mode is {mode}; it must be ON, because a migration's position in the binlog is a set of GTIDs.",
        f"{hint} Before the last one wait until SHOW STATUS LIKE 'Ongoing_anonymous_transaction_count' shows 0.",
    )


def _check_server_id(server: CheckedServer) -> Check:
    value = server.variables.get("server_id", "0")
    if value != "0":
        return Check("server_id", Outcome.OK, f"server_id is {value}.")
    return Check(
        "server_id",
        Outcome.PROBLEM,
        "server_id is 0; it must be another number, because a server whose id is 0 sends its binlog to no replica.",
        "SET PERSIST server_id = 1; (any number that no other server in this replication has)",
    )


def _check_replica_updates(server: CheckedServer) -> Check:
    name = "log_replica_updates"
    if server.variables.get(name, server.variables.get("log_slave_updates", "ON")) == "ON":
        return Check(name, Outcome.OK, f"{name} is ON.")
    return Check(
        name,
        Outcome.PROBLEM,
        f"{name} is OFF; it must be ON, because changes replicated from another server are otherwise missing in its binlog.",
        "Under [mysqld] in my.cnf write log_replica_updates=ON (log_slave_updates=ON before MySQL 8.0.26), and restart the server.",
    )


def _check_replication_slave(server: CheckedServer) -> Check:
    """Runs the one other statement that needs the same right as reading the binlog."""
    name = "grant_replication_slave"
    if server.ask("SHOW REPLICAS" if server.version >= (8, 0, 22) else "SHOW SLAVE HOSTS") is not None:
        return Check(name, Outcome.OK, f"The user {server.account} may read the binlog.")
    message = f"The user {server.account} has no REPLICATION SLAVE, which reading the binlog needs."
    return Check(name, Outcome.PROBLEM, message, server.grant("REPLICATION SLAVE"))


def _check_replication_client(server: CheckedServer) -> Check:
    name = "grant_replication_client"
    if server.ask_log_status() is not None:
        return Check(name, Outcome.OK, f"The user {server.account} may ask for the end of the binlog.")
    message = f"The user {server.account} has no REPLICATION CLIENT, which asking for the end of the binlog needs."
    return Check(name, Outcome.PROBLEM, message, server.grant("REPLICATION CLIENT"))


def _check_xa(server: CheckedServer) -> Check:
    """A prepared transaction is in gtid_executed before its rows can be read: a copy would miss them."""
    name = "prepared_xa"
    prepared = server.ask("XA RECOVER CONVERT XID")
    if prepared is None:
        return Check(
            name,
            Outcome.UNKNOWN,
            f"The user {server.account} may not list prepared XA transactions; there must be none, because a copy would miss their rows.",
            server.grant("XA_RECOVER_ADMIN"),
        )
    if not prepared:
        return Check(name, Outcome.OK, "No XA transaction is prepared.")
    format_id, gtrid_length, _, data = prepared[0]
    digits, cut = str(data).removeprefix("0x"), 2 * int(gtrid_length)
    xid = f"X'{digits[:cut]}',X'{digits[cut:]}',{format_id}"
    return Check(
        name,
        Outcome.PROBLEM,
        f"{count(len(prepared), 'XA transaction is', 'XA transactions are')} prepared and not finished; "
        "there must be none, because a copy would miss their rows.",
        f"Let the application finish what XA RECOVER lists, or end it yourself: XA COMMIT {xid}; or XA ROLLBACK {xid};",
    )


def _check_retention(server: CheckedServer) -> Check:
    name = "retention"
    seconds = int(server.variables.get("binlog_expire_logs_seconds", "0"))
    if server.connection.is_mariadb and not seconds:  # its older name
        seconds = int(86_400 * float(server.variables.get("expire_logs_days", "0")))
    if seconds == 0 or server.variables.get("binlog_expire_logs_auto_purge") == "OFF":
        return Check(name, Outcome.OK, "The source keeps its binlogs until they are purged by hand.")
    if seconds >= LEAST_RETENTION:
        return Check(name, Outcome.OK, f"The source keeps its binlogs for {seconds} seconds.")
    return Check(
        name,
        Outcome.WARNING,
        f"The source keeps its binlogs for {seconds} seconds; a migration that stops for longer cannot resume, "
        f"keep them for {LEAST_RETENTION} at least.",
        "SET PERSIST binlog_expire_logs_seconds = 86400;",
    )


_CHECKS: Mapping[str, Callable[[CheckedServer], Check]] = {
    "gtid_mode": _check_gtid_mode,
    "server_id": _check_server_id,
    "log_replica_updates": _check_replica_updates,
    "grant_replication_slave": _check_replication_slave,
    "grant_replication_client": _check_replication_client,
    "prepared_xa": _check_xa,
    "retention": _check_retention,
}

_MARIADB_CHECKS: Mapping[str, Callable[[CheckedServer], Check]] = {
    "server_id": _check_server_id,
    **mariadb.CHECKS,
    "retention": _check_retention,
}
