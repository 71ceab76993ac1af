"""Waits of the main thread that a signal ends at once: for the source, where a stop that was asked for need not know the answer.

Python resumes a system call after a signal handler. So the handler raises BrokenOff within such a wait, and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class BrokenOff(Exception):
    """The wait was ended by a signal."""


class _State:
    within = False
    asked = False


def unless_stopped(ask: Callable[[], _T], stopped: Callable[[], None]) -> _T | None:
    """What `ask` gives; None once `break_off` was called, before it or meanwhile: then `stopped` is called.

    Outside the main thread nothing but `ask` is called.
    """
    if threading.current_thread() is not threading.main_thread():
        return ask()
    try:
        try:
            _State.within = True
            if not _State.asked:
                return ask()
        finally:
            _State.within = False
    except BrokenOff:
        pass
    stopped()
    return None


def break_off() -> None:
    """End the wait that the main thread is in, and those to come. Called last in a signal handler: it raises BrokenOff there."""
    _State.asked = True
    if _State.within:
        _State.within = False
        raise BrokenOff


def reset() -> None:
    """Let waits last again."""
    _State.asked = False
