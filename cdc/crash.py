"""Named crash points: the places where state changes hands, at which tests kill the process.

Only the point that the environment names is active: `CDC_CRASH_AT=after-apply` kills the process with SIGKILL when it first passes the
point, `CDC_CRASH_AT=after-apply:3` at the third time.
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
    """Kill the process if the environment names this point and this passing of it."""
    if name == _NAME:
        _passed[name] += 1
        if _passed[name] == int(_COUNT or 1):
            os.kill(os.getpid(), signal.SIGKILL)
