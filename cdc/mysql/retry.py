"""How a lost connection is tried again: after growing pauses with jitter, until it has been away for too long or nobody waits any more.

A damaged packet counts as a lost connection once: a second time, the same damage is what the source sends.
"""

from __future__ import annotations

import random
import threading
import time

from cdc.errors import CdcError, DamagedEvent, Temporary, UnreadableAnswer

_FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds. The first try comes before a person notices; the longest pause leaves a server that starts up alone."""


MAY_PASS = (Temporary, DamagedEvent, UnreadableAnswer)
"""The errors that are tried again."""


class Backoff:
    """The pauses between tries. `give_up_seconds` is how long the source may be away, None for as long as it takes."""

    def __init__(self, closing: threading.Event, give_up_seconds: float | None) -> None:
        self._closing, self._give_up_seconds = closing, give_up_seconds
        self._since: float | None = None
        self._tries = 0
        self._damage: tuple[str, int] | None = None
        """The last one that was not simply a lost connection."""

    @property
    def away_seconds(self) -> float:
        """How long it has been away, 0.0 while it is there."""
        return time.monotonic() - self._since if self._since is not None else 0.0

    def reset(self) -> None:
        """It is there again."""
        self._since, self._tries = None, 0

    def wait(self, error: CdcError, longest: float = LONGEST_PAUSE) -> None:
        """Pause before the next try after one of MAY_PASS, about `longest` seconds at most; raises `error` when there is to be none."""
        if not isinstance(error, Temporary):
            damage = error.message, getattr(error, "evidence", 0)
            if damage == self._damage:
                raise error
            self._damage = damage
        self._since = self._since if self._since is not None else time.monotonic()
        out_of_patience = self._give_up_seconds is not None and self.away_seconds > self._give_up_seconds
        pause = min(_FIRST_PAUSE * 2**self._tries, longest) * random.uniform(0.5, 1.5)
        self._tries += 1
        if out_of_patience or self._closing.wait(pause):
            raise error
