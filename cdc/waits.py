"""Waits of the main thread that a signal ends at once: for the source, where a stop that was asked for need not know the answer.

Python resumes a system call after a signal handler. So the handler raises BrokenOff within such a wait, and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class BrokenOff(Exception):
    """The wait was ended by a signal."""


class _State:
    within = False
    asked = False


@contextmanager
def breakable() -> Iterator[None]:
    """A wait that `break_off` ends by BrokenOff, also one that begins after it was called. Outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.within = True
    try:
        if _State.asked:
            raise BrokenOff
        yield
    finally:
        _State.within = False


def break_off() -> None:
    """End the wait that the main thread is in, and those to come. Called last in a signal handler: it raises BrokenOff there."""
    _State.asked = True
    if _State.within:
        _State.within = False
        raise BrokenOff


def reset() -> None:
    """Let waits last again."""
    _State.asked = False
