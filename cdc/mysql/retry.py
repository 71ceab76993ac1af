"""Retries after a lost connection: with growing pauses and jitter, until the server has been away for too long or the source is closing.

A damaged packet counts as a lost connection once. If the same damage comes a second time, the server sends it, and the error is raised.
"""

from __future__ import annotations

import random
import threading
import time

from cdc.errors import CdcError, DamagedEvent, Temporary, UnreadableAnswer

_FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds. The first retry comes before a person notices; the longest pause spares a server that is starting up."""


MAY_PASS = (Temporary, DamagedEvent, UnreadableAnswer)
"""The errors after which a retry makes sense."""


class Backoff:
    """The pauses between retries. `give_up_seconds` bounds how long the server may be away; None waits for ever."""

    def __init__(self, closing: threading.Event, give_up_seconds: float | None) -> None:
        self._closing, self._give_up_seconds = closing, give_up_seconds
        self._since: float | None = None
        self._tries = 0
        self._damage: tuple[str, int] | None = None
        """Of the last error that was not merely a lost connection: its message and evidence."""

    @property
    def away_seconds(self) -> float:
        """How long the server has been away; 0.0 while it answers."""
        return time.monotonic() - self._since if self._since is not None else 0.0

    def reset(self) -> None:
        """The server answers again."""
        self._since, self._tries = None, 0

    def wait(self, error: CdcError, longest: float = LONGEST_PAUSE) -> None:
        """Pause before the next try after one of MAY_PASS, about `longest` seconds at most. Raises `error` to give up."""
        if not isinstance(error, Temporary):
            damage = error.message, getattr(error, "evidence", 0)
            if damage == self._damage:
                raise error
            self._damage = damage
        self._since = self._since if self._since is not None else time.monotonic()
        give_up = self._give_up_seconds is not None and self.away_seconds > self._give_up_seconds
        pause = min(_FIRST_PAUSE * 2**self._tries, longest) * random.uniform(0.5, 1.5)
        self._tries += 1
        if give_up or self._closing.wait(pause):
            raise error
