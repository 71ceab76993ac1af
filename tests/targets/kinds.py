"""The targets that the contract is run on: the map store, and the one that docs/targets.md has."""

from __future__ import annotations

import re
from pathlib import Path

from cdc.config import TargetUrl
from cdc.engine.interfaces import Target, TargetReader
from cdc.targets import open_reader, open_target

DOCUMENT = Path(__file__).parents[2] / "docs" / "targets.md"
KINDS = ("mapstore", "rowsfile")


def load_documented_target() -> None:
    """Run the document's first block of Python, which registers `rowsfile:`."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    exec(compile(code.group(1), str(DOCUMENT), "exec"), {"__name__": "documented_target"})


load_documented_target()


class Place:
    """An empty place for a target of a kind."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.url = TargetUrl.parse(f"{kind}:{folder / 'target'}")

    def target(self) -> Target:
        """The target there, which is not yet opened."""
        return open_target(self.url)

    def reader(self) -> TargetReader:
        """A snapshot of it."""
        return open_reader(self.url)
