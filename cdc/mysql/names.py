"""How a server compares the names of schemas and tables: by the letter, or without case, with the letters that it takes for the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cdc.model import TableId
from cdc.model.selection import Selection, matches
from cdc.mysql.connection import Connection, text


@dataclass(frozen=True, slots=True)
class NameRules:
    """The server's lower_case_table_names: 0 compares names by the letter, 1 stores them in lower case, 2 stores them as they are written.

    `lower` gives the server's lower case of a letter where it is another one. It is empty with 0.
    """

    lower_case_table_names: int = 0
    lower: Mapping[int, str] = field(default_factory=dict)

    def key(self, table: TableId) -> TableId:
        """What the names of one table have in common, however they are written."""
        return TableId(table.schema.translate(self.lower), table.table.translate(self.lower)) if self.lower_case_table_names else table

    def stored(self, table: TableId) -> TableId:
        """The name that the server stores for a new table of this name."""
        return self.key(table) if self.lower_case_table_names == 1 else table

    def held(self, table: TableId, known: Iterable[TableId]) -> TableId:
        """The name under which this table is among the known ones; the name that the server would store where it is not. Patterns too."""
        if not self.lower_case_table_names:
            return table
        key = self.key(table)
        return next((each for each in known if self.key(each) == key), self.stored(table))

    def wants(self, selection: Selection, table: TableId) -> bool:
        """Whether the table is among those that are meant."""
        return self._keys(selection).wants(self.key(table))

    def named(self, selection: Selection, table: TableId) -> bool:
        """Whether the table is named in full."""
        return self._keys(selection).names(self.key(table))

    def _keys(self, selection: Selection) -> Selection:
        return Selection(tuple(map(self.key, selection.wanted)), tuple(map(self.key, selection.excluded)))

    def matches(self, table: TableId, wanted: TableId) -> bool:
        """Whether this is the wanted table, or one that its pattern means."""
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
