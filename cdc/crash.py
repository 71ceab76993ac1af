"""Named crash points: the places where state changes hands, so that tests can kill the process exactly there.

A point does nothing unless the environment names it: `CDC_CRASH_AT=after-apply` kills the process with SIGKILL the first time it gets
there, `CDC_CRASH_AT=after-apply:3` the third time.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = (
    "after-chunk-read", "after-apply", "mid-transaction", "schema-change",
    "mid-image", "before-checkpoint", "after-checkpoint", "before-swap", "after-swap",
)  # fmt: skip
_NAME, _, _COUNT = os.environ.get("CDC_CRASH_AT", "").partition(":")
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Die here if this is the point, and the time, that the environment asks for."""
    if name == _NAME:
        _passed[name] += 1
        if _passed[name] == int(_COUNT or 1):
            os.kill(os.getpid(), signal.SIGKILL)
