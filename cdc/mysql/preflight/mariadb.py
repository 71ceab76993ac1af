"""The preflight checks that differ on MariaDB: its GTIDs, its names for rights, its list of XA transactions.

cdc/mysql/preflight/__init__.py has the checks of both servers and combines them. Tables are checked in tables.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cdc.mysql.preflight.checks import Check, CheckedServer, Outcome, count

OLDEST_VERSION = (10, 5)
"""The first version that can name columns in its binlog."""


def _check_strict_mode(server: CheckedServer) -> Check:
    name = "gtid_strict_mode"
    if server.variables.get(name) == "ON":
        return Check(name, Outcome.OK, f"{name} is ON.")
    return Check(
        name,
        Outcome.WARNING,
        f"{name} is OFF; it should be ON, because a migration stops where the numbers of a domain's GTIDs do not ascend.",
        "SET PERSIST gtid_strict_mode = ON;",
    )


def _check_replica_updates(server: CheckedServer) -> Check:
    """OFF by default; it matters only on a server that has replicated from another one."""
    name = "log_replica_updates"
    if server.variables.get("log_slave_updates") == "ON" or not server.variables.get("gtid_slave_pos"):
        return Check(name, Outcome.OK, "The server logs what it replicates, or replicates nothing.")
    return Check(
        name,
        Outcome.PROBLEM,
        "log_slave_updates is OFF; it must be ON, because changes replicated from another server are otherwise missing in its binlog.",
        "Under [mysqld] in my.cnf write log_slave_updates=ON, and restart the server.",
    )


def _check_semi_sync(server: CheckedServer) -> Check:
    """With AFTER_SYNC a transaction is in the binlog and not yet visible while it waits for a replica; a rotation hides it from a view."""
    name = "semi_sync"
    settings = [server.variables.get(f"rpl_semi_sync_master_{name}") for name in ("enabled", "wait_point")]
    if settings != ["ON", "AFTER_SYNC"]:
        return Check(name, Outcome.OK, "No transaction waits for a replica between the binlog and its rows.")
    return Check(
        name,
        Outcome.PROBLEM,
        "rpl_semi_sync_master_wait_point is AFTER_SYNC; it must be AFTER_COMMIT, or a copy can miss transactions that wait for a replica.",
        "SET PERSIST rpl_semi_sync_master_wait_point = AFTER_COMMIT;",
    )


def _check_replication_slave(server: CheckedServer) -> Check:
    """Read from SHOW GRANTS, which includes active roles: MariaDB has no harmless statement that needs this right alone."""
    name = "grant_replication_slave"
    granted = [match[1] for (line,) in server.connection.rows("SHOW GRANTS") if (match := _GLOBAL_GRANT.match(str(line)))]
    if any(right in ("REPLICATION SLAVE", "ALL PRIVILEGES") for rights in granted for right in rights.split(", ")):
        return Check(name, Outcome.OK, f"The user {server.account} may read the binlog.")
    message = f"The user {server.account} has no REPLICATION SLAVE, which reading the binlog needs."
    return Check(name, Outcome.PROBLEM, message, server.grant("REPLICATION SLAVE"))


_GLOBAL_GRANT = re.compile(r"GRANT (.+?) ON \*\.\* TO ")


def _check_binlog_monitor(server: CheckedServer) -> Check:
    name = "grant_replication_client"
    if server.ask_log_status() is not None:
        return Check(name, Outcome.OK, f"The user {server.account} may ask for the end of the binlog.")
    message = f"The user {server.account} has no BINLOG MONITOR, which asking for the end of the binlog needs."
    return Check(name, Outcome.PROBLEM, message, server.grant("BINLOG MONITOR"))


def check_xa(server: CheckedServer) -> Check:
    """A prepared transaction is in the binlog before its rows can be read: a copy would miss them."""
    name = "prepared_xa"
    prepared = server.connection.rows("XA RECOVER FORMAT='SQL'")
    if not prepared:
        return Check(name, Outcome.OK, "No XA transaction is prepared.")
    xid = prepared[0][3]
    return Check(
        name,
        Outcome.PROBLEM,
        f"{count(len(prepared), 'XA transaction is', 'XA transactions are')} prepared and not finished; "
        "there must be none, because a copy would miss their rows.",
        f"Let the application finish what XA RECOVER lists, or end it yourself: XA COMMIT {xid}; or XA ROLLBACK {xid};",
    )


CHECKS: Mapping[str, Callable[[CheckedServer], Check]] = {
    "gtid_strict_mode": _check_strict_mode,
    "log_replica_updates": _check_replica_updates,
    "semi_sync": _check_semi_sync,
    "grant_replication_slave": _check_replication_slave,
    "grant_replication_client": _check_binlog_monitor,
    "prepared_xa": check_xa,
}
