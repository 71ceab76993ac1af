"""Signals: SIGINT, SIGTERM and SIGHUP ask a migration for a last checkpoint and end everything else with `Interrupted`.

An interruption never looks like a result. `Interrupted` is a KeyboardInterrupt, so that neither `except CdcError` nor `except Exception`
catches it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from cdc.engine.migration import Migration
from cdc.engine.status import Report, RunStatus
from cdc.errors import Rewind
from cdc.mysql import waits

STOPPING = "saving a last checkpoint"
PRESS_AGAIN = "; press again to stop without it"
"""Added after Ctrl-C, which only a person presses."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a command before it was done. `exit_code` is 128 plus the signal's number: 130 for Ctrl-C.

    `report` is that of a migration whose last checkpoint was saved, else None.
    """

    def __init__(self, message: str, number: int = signal.SIGINT, report: Report | None = None) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
        self.report = report


class StopSignal:
    """The signal that has asked for a stop, if any."""

    number: signal.Signals | None = None

    @property
    def name(self) -> str:
        """The signal's name; empty if there was none."""
        return self.number.name if self.number else ""


@contextmanager
def stopped_by_signals(stop: Callable[[], None], say: Callable[[str], None] | None = None) -> Iterator[StopSignal]:
    """The first SIGINT, SIGTERM or SIGHUP calls `stop` and breaks off waits; the second raises Interrupted, the third kills.

    With `say`, the first signal starts a last checkpoint, and the handler says so. Further SIGTERMs and SIGHUPs are ignored then, because
    `timeout` sends each twice: only SIGINT ends the saving. A SIGHUP that is ignored or has its own handler keeps it. Does nothing outside
    the main thread.
    """
    asked = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if asked.number is None:
            asked.number = signal.Signals(number)
            stop()
            if say:
                say(STOPPING + (PRESS_AGAIN if number == signal.SIGINT else ""))
            waits.break_off()
            return
        if say and number != signal.SIGINT:
            return
        for handled in before:
            signal.signal(handled, signal.SIG_DFL)
        raise Interrupted("Interrupted.", number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, *_hangup())}
    try:
        yield asked
    finally:
        waits.reset()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if say and asked.number and handler is _end else handler)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored, act as Ctrl-C does, so that temporary files and servers are removed."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, *_hangup())}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _end:  # otherwise a signal has come, and the process is ending
                signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    raise Interrupted("Interrupted.", number)


def _hangup() -> tuple[signal.Signals, ...]:
    """SIGHUP, if it would end the process: not under nohup, and not if it reloads the config file."""
    return (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, _end) else ()


def run(migration: Migration, *, until_caught_up: bool, say: Callable[[str], None]) -> Report:
    """Run a migration until it has caught up or a signal stops it.

    SIGTERM is the ordinary end of a run without `until_caught_up`. Any other stop by a signal raises Interrupted, with the report if the
    last checkpoint was saved.
    """
    with stopped_by_signals(migration.stop, say) as asked:
        try:
            report = migration.run()
        except KeyboardInterrupt as error:
            raise Interrupted(_unsaved(migration.observe()), getattr(error, "exit_code", 130) - 128) from error
        except Rewind:
            if asked.number is None:
                raise
            raise Interrupted(_unsaved(migration.observe()), asked.number) from None
    report, status = replace(report, stopped_by=asked.name), migration.status
    if asked.number is None or (asked.number is signal.SIGTERM and (report.caught_up or not until_caught_up)):
        return report
    if status.unsaved_rows:  # part of a transaction whose rest has not come
        raise Interrupted(_unsaved(status), asked.number)
    raise Interrupted("Interrupted. The last checkpoint is saved: run the same command again to go on from it.", asked.number, report)


def _unsaved(status: RunStatus) -> str:
    """The message of a run that ends without a last checkpoint: what it loses, and from where it can be continued."""
    if not status.checkpointed_at:
        return "Interrupted before a first checkpoint: nothing of this run is kept."
    return (
        f"Interrupted without a last checkpoint: {status.unsaved_rows:,} rows and changes applied since the one before are not kept. "
        f"That checkpoint stays, at {status.saved_position.gtids}: the same command goes on from it and reads them again."
    )
