"""The types and helpers that all preflight checks share. See cdc/mysql/preflight/__init__.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pymysql
from pymysql.constants import ER

from cdc.model import TableId
from cdc.mysql.connection import Connection, Row


class Outcome(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    PROBLEM = "problem"
    """A migration is not possible until this is solved."""
    WARNING = "warning"
    """A migration works; the message says which part is missing, or may be later."""
    SKIPPED = "skipped"
    """A table that only a pattern matches cannot be followed; the others are migrated without it."""
    UNKNOWN = "unknown"
    """The check could not be made."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result: the message says what is and what is needed, the hint says how to get there."""

    name: str
    status: Outcome
    message: str
    hint: str = ""
    table: TableId | None = None
    """The table that the check is about; None: the server, or several tables."""
    missing: bool = False
    """Whether the problem is that the table does not exist."""

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.name}: {self.message} {self.hint}".rstrip()


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """The server that is checked. `variables` are its global variables, `account` is the user as a GRANT names it."""

    connection: Connection
    version: tuple[int, ...]
    variables: Mapping[str, str]
    account: str

    def ask(self, statement: str) -> list[Row] | None:
        """The statement's rows, None if the user may not run it."""
        try:
            return self.connection.rows(statement)
        except pymysql.MySQLError as error:
            if denied(error):
                return None
            raise

    def ask_log_status(self) -> list[Row] | None:
        """The end of the binlog and its filters; no row if the binlog is off, None if the user may not ask."""
        return self.ask(self.connection.log_status)

    def grant(self, privilege: str, on: str = "*.*") -> str:
        """The GRANT statement that gives the user this privilege."""
        return f"GRANT {privilege} ON {on} TO {self.account};"


def made(name: str, server: CheckedServer, check: Callable[[CheckedServer], Check]) -> Check:
    """The check's result; `unknown` where the server refuses the query."""
    try:
        return check(server)
    except pymysql.MySQLError as error:
        return refused(name, server, error)


def refused(name: str, server: CheckedServer, error: pymysql.MySQLError, about: str = "") -> Check:
    """The result of a check that could not be made. Raises the error again if the connection is broken."""
    if not server.connection.open:
        raise error
    return Check(name, Outcome.UNKNOWN, f"The server did not answer{about}: {error.args[-1]}.")


_DENIED = {
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
    ER.XAER_RMERR,  # the answer to XA RECOVER without XA_RECOVER_ADMIN
}


def denied(error: pymysql.MySQLError) -> bool:
    """Whether the server refused because the user lacks a right."""
    return error.args[0] in _DENIED


def count(number: int, one: str, many: str = "") -> str:
    """`1 table`, `2 tables`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
