"""How a server compares the names of schemas and tables: exactly, or without case by its own pairs of upper and lower case letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cdc.model import TableId
from cdc.model.selection import Selection, matches
from cdc.mysql.connection import Connection, text


@dataclass(frozen=True, slots=True)
class NameRules:
    """The server's lower_case_table_names: 0 compares names exactly, 1 stores them in lower case, 2 stores them as written.

    `lower` maps a letter's code point to its lower case on the server. It is empty with 0.
    """

    lower_case_table_names: int = 0
    lower: Mapping[int, str] = field(default_factory=dict)

    def key(self, table: TableId) -> TableId:
        """The form in which all names of one table are equal."""
        return TableId(table.schema.translate(self.lower), table.table.translate(self.lower)) if self.lower_case_table_names else table

    def stored(self, table: TableId) -> TableId:
        """The name that the server stores for a new table of this name."""
        return self.key(table) if self.lower_case_table_names == 1 else table

    def held(self, table: TableId, known: Iterable[TableId]) -> TableId:
        """The table's name among the known ones, else the name that the server would store. Also for patterns."""
        if not self.lower_case_table_names:
            return table
        key = self.key(table)
        return next((name for name in known if self.key(name) == key), self.stored(table))

    def wants(self, selection: Selection, table: TableId) -> bool:
        """Whether the selection matches the table."""
        return self._keys(selection).wants(self.key(table))

    def named(self, selection: Selection, table: TableId) -> bool:
        """Whether the selection has the table's own name, not only a pattern."""
        return self._keys(selection).names(self.key(table))

    def _keys(self, selection: Selection) -> Selection:
        return Selection(tuple(map(self.key, selection.wanted)), tuple(map(self.key, selection.excluded)))

    def matches(self, table: TableId, wanted: TableId) -> bool:
        """Whether the table has the wanted name, or matches the wanted pattern."""
        return matches(self.key(table), self.key(wanted))


def name_rules(connection: Connection) -> NameRules:
    """The rules of the server at the other end."""
    rule = int(connection.one("SELECT @@lower_case_table_names")[0])
    if not rule:
        return NameRules()
    letters = "".join(letter for letter in map(chr, range(0x10000)) if letter.upper() != letter or letter.lower() != letter)
    wide = letters.encode("utf-16-be").hex()
    (lowered,) = connection.one(f"SELECT LOWER(CONVERT(_utf16 0x{wide} USING utf8mb4) COLLATE utf8mb4_general_ci)")
    return NameRules(rule, {ord(letter): lower for letter, lower in zip(letters, text(lowered), strict=True) if lower != letter})
