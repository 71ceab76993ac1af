"""The message about an internal error: one sentence, where the traceback is, and where to report it."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from importlib.metadata import version

EXIT_CODE = 70
"""sysexits.h: an internal software error."""


def told(error: Exception, *, debug: bool) -> str:
    """The sentence about an unexpected exception. Its traceback is saved in a file; with `debug` it is part of the text."""
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    text = f"cdc {version('cdc')}, Python {sys.version.split()[0]}\n" + "".join(traceback.format_exception(error))
    saved = "" if debug else _saved(text)
    where = f"the traceback in {saved}" if saved else "this traceback"
    sentence = (
        f"This is a fault of cdc, not of its source or target: {what}. The last checkpoint is as it was. "
        f"Please report it to those who maintain cdc, with {where}."
    )
    return sentence if saved else sentence + "".join(f"\n  {line}" for line in text.splitlines())


def _saved(text: str) -> str:
    """Save the text in a new file with mode 0600. Returns its name; empty if it cannot be written."""
    try:
        number, name = tempfile.mkstemp(".txt", "cdc-fault-")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return ""
    return name
