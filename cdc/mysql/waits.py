"""Waits of the main thread for the source that a signal ends at once, since a run that is to stop does not need the answer.

Python resumes a system call after a signal handler returns. So the handler raises BrokenOff within such a wait, and only there.
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
    stop_requested = False


def unless_stopped(ask: Callable[[], _T], stopped: Callable[[], None]) -> _T | None:
    """The result of `ask`; None, after calling `stopped`, if `break_off` was called before or meanwhile.

    Outside the main thread only `ask` is called.
    """
    if threading.current_thread() is not threading.main_thread():
        return ask()
    try:
        try:
            _State.within = True
            if not _State.stop_requested:
                return ask()
        finally:
            _State.within = False
    except BrokenOff:
        pass
    stopped()
    return None


def break_off() -> None:
    """End the main thread's current wait and all later ones. To be called last in a signal handler: it raises BrokenOff there."""
    _State.stop_requested = True
    if _State.within:
        _State.within = False
        raise BrokenOff


def reset() -> None:
    """Allow waits again."""
    _State.stop_requested = False
