"""The rights that this account has for certain. information_schema shows a table only to users with rights on it.

So "not listed" means "does not exist" only for a user who has such a right. Grants count here if they hold beyond doubt: those on one table
or on exactly one schema, and global ones that no partial revoke takes back. A grant on a pattern of schemas may be overridden by a more
specific one, and grants of roles are not listed to every user: neither counts.
"""

from __future__ import annotations

import re

from cdc.model import TableId
from cdc.model.selection import SYSTEM_SCHEMAS, matches
from cdc.mysql.connection import Connection, quote_identifier, text
from cdc.mysql.names import NameRules, name_rules


def account(connection: Connection) -> str:
    """The account of this session, as a GRANT names it."""
    return "@".join(map(quote_identifier, _user_and_host(connection)))


def _user_and_host(connection: Connection) -> tuple[str, str]:
    name, _, host = text(connection.one("SELECT CURRENT_USER()")[0]).rpartition("@")
    return name, host


class Privileges:
    """The privileges of this session's account at the time of construction."""

    def __init__(self, connection: Connection) -> None:
        self._rules: NameRules = name_rules(connection)
        self._account = account(connection)
        self._literal = any(text(value) == "ON" for _, value in connection.rows("SHOW GLOBAL VARIABLES LIKE 'partial_revokes'"))
        """Whether `_` and `%` in a grant's schema are literal characters."""
        grantee = ("@".join(f"'{part}'" for part in _user_and_host(connection)),)
        self._global = {text(right) for (right,) in connection.rows(_GLOBAL, grantee)}
        self._revoked = {
            (right, schema)
            for (line,) in connection.rows("SHOW GRANTS")
            if (match := _REVOKE.match(text(line)))
            for right in match[1].split(", ")
            for schema in [self.key(match[2].replace("``", "`"))]
        }
        schemas = ((self._one_schema(text(pattern)), text(right)) for pattern, right in connection.rows(_SCHEMAS, grantee))
        self._schemas = {(right, self.key(schema)) for schema, right in schemas if schema is not None}
        self._tables = {
            (text(right), self._rules.key(TableId(text(schema), text(table)))) for schema, table, right in connection.rows(_TABLES, grantee)
        }

    def has(self, right: str, table: TableId) -> bool:
        """Whether the account has this right on the table, or on all tables of the schema, for certain."""
        return self.has_in(right, table.schema) or (right, self._rules.key(table)) in self._tables

    def has_in(self, right: str, schema: str) -> bool:
        """Whether the account has this right on all tables of the schema for certain."""
        named = (right, self.key(schema))
        return named in self._schemas or (right in self._global and named not in self._revoked)

    def lacking(self, right: str, pattern: TableId) -> list[str]:
        """The schemas that a pattern matches and whose tables may include some on which the account lacks this right.

        `*` stands for all schemas. System schemas are left out, since patterns do not match their tables.
        """
        if "*" not in pattern.schema:
            return [] if pattern.schema.lower() in SYSTEM_SCHEMAS or self.has_in(right, pattern.schema) else [pattern.schema]
        if right not in self._global:
            return ["*"]
        folded = self._rules.key(TableId(pattern.schema, "*"))
        revoked = sorted(schema for lost, schema in self._revoked if lost == right and not self.has_in(right, schema))
        return [schema for schema in revoked if matches(TableId(schema, ""), folded)]

    def has_everywhere(self, right: str) -> bool:
        """Whether the account has this right on all tables of all schemas for certain."""
        return right in self._global and not any(revoked == right for revoked, _ in self._revoked)

    def grant(self, right: str, on: TableId | str = "") -> str:
        """The statement that gives the account the right on a table, on a schema, or everywhere."""
        if not on:
            what = "*.*"
        elif isinstance(on, TableId):
            what = on.sql
        else:
            what = quote_identifier(on if self._literal else _WILD.sub(r"\\\g<0>", on)) + ".*"
        return f"GRANT {right} ON {what} TO {self._account};"

    def key(self, schema: str) -> str:
        """The form in which all names of one schema are equal."""
        return self._rules.key(TableId(schema, "")).schema

    def _one_schema(self, pattern: str) -> str | None:
        """The schema that a grant names; None if its pattern may match several."""
        if self._literal:
            return pattern
        return None if re.search(r"(?<!\\)[_%]", pattern) else re.sub(r"\\([_%])", r"\1", pattern)


_WILD = re.compile("[_%]")
_REVOKE = re.compile(r"REVOKE (.+?) ON `((?:[^`]|``)+)`\.\* FROM ")
"""A partial revoke among the lines of SHOW GRANTS."""
_GLOBAL = "SELECT privilege_type FROM information_schema.user_privileges WHERE grantee = %s"
_SCHEMAS = "SELECT table_schema, privilege_type FROM information_schema.schema_privileges WHERE grantee = %s"
_TABLES = "SELECT table_schema, table_name, privilege_type FROM information_schema.table_privileges WHERE grantee = %s"
