"""The effects of ALTER TABLE, read from the first words of its parts. A part that is not known counts as a rewrite of all rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdc.model import TableId
from cdc.mysql.effects import Altered, Created, Dropped, Effect, IndexesChanged, Moved, Rebuilt
from cdc.mysql.sql_tokens import NotUnderstood
from cdc.mysql.token_reader import TokenReader

_INDEXES = {"INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL"}
_HARMLESS = {
    "ALGORITHM", "LOCK", "FORCE", "COMMENT", "AUTO_INCREMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "ENABLE", "DISABLE", "ORDER", "DEFAULT",
    "CHARACTER", "CHARSET", "COLLATE", "STATS_PERSISTENT", "STATS_AUTO_RECALC", "STATS_SAMPLE_PAGES", "MAX_ROWS", "MIN_ROWS",
    "AVG_ROW_LENGTH", "CHECKSUM", "COMPRESSION", "ENCRYPTION", "TABLESPACE", "WITH", "WITHOUT", "PARTITION", "REORGANIZE",
    "COALESCE", "REBUILD", "OPTIMIZE", "ANALYZE", "CHECK", "REPAIR", "REMOVE", "PAGE_COMPRESSED", "PAGE_COMPRESSION_LEVEL", "ENCRYPTED",
    "ENCRYPTION_KEY_ID",
}  # fmt: skip
"""First words of parts that leave columns and rows as they are, except for a rebuild."""
_EXAMINED = {"ENGINE", "CONSTRAINT", "FOREIGN", "ALTER"}
"""The same, but the table may be one that cannot be followed afterwards, or (ALTER of a default) added columns hold other values."""
_MAY_HAVE_CHANGED_ROWS = {"FOREIGN", "CONSTRAINT"}
"""After DROP: until now such a foreign key may have changed rows by cascades that are not in the binlog."""
_REWRITES = {"PRIMARY", "PARTITION", "PERIOD", "SYSTEM"}
"""After ADD or DROP: rows may change without row events. PARTITION only after DROP."""


def alter(reader: TokenReader, *, mariadb: bool) -> list[Effect]:
    """The effects of a statement that begins with ALTER, which `reader` has gone past. Raises NotUnderstood."""
    reader.accept("ONLINE")
    ignore = reader.accept("IGNORE")
    if not reader.accept("TABLE"):
        reader.require_other_object()
        return []
    reader.accept("IF", "EXISTS")
    table = reader.table()
    reader.past_waiting()
    alteration = _Alteration(table, rows_kept=not ignore, rebuilt=mariadb)
    for part in reader.parts() if reader else ():
        alteration.read(part)
    return alteration.effects()


@dataclass(slots=True)
class _Alteration:
    """Collects the effects of the parts of an ALTER."""

    table: TableId
    rows_kept: bool
    rebuilt: bool
    """Whether rows may be rewritten. MariaDB rewrites them even for a mere RENAME, where the session's alter_algorithm is COPY."""
    to: TableId | None = None
    examined: bool = False
    indexes: bool = False
    """Whether the table has other indexes afterwards."""
    on_others: list[Effect] = field(default_factory=list)
    """Effects on other tables."""
    anything_added: bool = False
    redefined: bool = False
    """Whether a column has another default afterwards."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)

    def effects(self) -> list[Effect]:
        """All effects. A new name comes first, since the server knows the table under that name."""
        table = self.to or self.table
        self.rows_kept = self.rows_kept and not (self.anything_added and self.redefined)
        effects: list[Effect] = [Moved(self.table, self.to, self.rebuilt)] if self.to else []
        if not self.rows_kept:
            effects.append(Altered(table))
        elif self.examined or self.renamed or self.dropped or (self.to and self.indexes):
            names = map(frozenset, (self.dropped, self.added, self.optional))
            effects.append(Altered(table, True, tuple(self.renamed), *names))
        elif self.indexes:
            effects.append(IndexesChanged(table))
        elif not self.to:
            effects.append(Rebuilt(table))
        return effects + self.on_others

    def read(self, part: TokenReader) -> None:
        """Take in one part."""
        self.rebuilt = self.rebuilt or part.word != "RENAME"
        if part.accept("ADD"):
            self._add(part)
        elif part.accept("DROP"):
            self._drop(part)
        elif part.accept("RENAME"):
            self._rename(part)
        elif part.accept("EXCHANGE", "PARTITION"):
            part.name()
            if not part.accept("WITH", "TABLE"):
                raise NotUnderstood("WITH TABLE is expected after a partition's name")
            self.rows_kept = False
            self.on_others.append(Altered(part.table()))
        elif part.accept("CONVERT"):
            self.rows_kept = False
            self._convert(part)
        elif part.word in _EXAMINED:
            self.examined = True
            self.redefined = self.redefined or part.word == "ALTER"
        elif part.word in _HARMLESS:
            self.examined = self.examined or "ENGINE" in part.rest()
        else:
            self.rows_kept = False

    def _convert(self, part: TokenReader) -> None:
        """CONVERT TO CHARACTER SET; on MariaDB also CONVERT of a partition into a table, or back."""
        if part.accept("PARTITION"):
            part.name()
            if not part.accept("TO", "TABLE"):
                raise NotUnderstood("TO TABLE is expected after a partition's name")
            self.on_others.append(Created(part.table(), replacing=True))
        elif part.accept("TABLE"):
            self.on_others.append(Dropped(part.table()))
            if not part.accept("TO", "PARTITION"):
                raise NotUnderstood("TO PARTITION is expected after a table's name")
        elif part.word != "TO":
            raise NotUnderstood("TO is expected after CONVERT")

    def _add(self, part: TokenReader) -> None:
        if part.word in _INDEXES or part.word == "PARTITION":
            self.indexes = self.indexes or part.word != "PARTITION"
            return
        self.examined = self.anything_added = True
        self.rows_kept = self.rows_kept and part.word not in _REWRITES and not (part.word in _EXAMINED and "PRIMARY" in part.rest())
        if not self.rows_kept or part.word in _EXAMINED or part.word == "CHECK":
            return
        part.accept("COLUMN")
        several = part.accept("(")
        for column in part.parts(inside=several):
            if not (several and column.word in _INDEXES | {"PRIMARY", "CONSTRAINT", "FOREIGN", "CHECK"}):
                optional = column.accept("IF", "NOT", "EXISTS")
                self.added.add(name := column.name())
                self.optional |= {name} if optional else set()
            elif "PRIMARY" in column.rest():
                self.rows_kept = False

    def _drop(self, part: TokenReader) -> None:
        if part.word in _INDEXES | {"FOREIGN", "CHECK", "CONSTRAINT"}:
            self.rows_kept = self.rows_kept and part.word not in _MAY_HAVE_CHANGED_ROWS and "PRIMARY" not in part.rest()
            self.indexes = True
        elif part.word in _REWRITES:
            self.rows_kept = False
        else:
            part.accept("COLUMN")
            optional = part.accept("IF", "EXISTS")
            self.dropped.add(name := part.name())
            self.optional |= {name} if optional else set()

    def _rename(self, part: TokenReader) -> None:
        if part.accept("COLUMN"):
            optional = part.accept("IF", "EXISTS")
            old = part.name()
            if not part.accept("TO"):
                raise NotUnderstood("TO is expected after a column's name")
            self.renamed.append((old, part.name()))
            self.optional |= {old} if optional else set()
        elif part.word in _INDEXES:
            self.indexes = True
        else:
            _ = part.accept("TO") or part.accept("AS") or part.accept("=")
            self.to = part.table()
