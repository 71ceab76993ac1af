"""Kills a writer of the history before each of its calls, and goes on from what it has left: `python -m tests.targets.killed KIND FOLDER`.

Prints how often it was killed. Every kill is a child process and a SIGKILL, so nothing is tidied up.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

from cdc.engine.interfaces import Commit, Target, goes_on_from
from cdc.errors import NothingHeld
from cdc.model import TableState
from tests.targets.history import LAST, TRANSACTIONS, assert_snapshot, changes, checkpoint, gtids, number_of
from tests.targets.kinds import Place

Call = tuple[str, int, Callable[[], object]]
"""What it does, after which transaction, and how."""


def calls(target: Target) -> Iterator[Call]:
    """The life of a writer: commits here and now, and such during which changes go on; a new copy beside the old one in the end."""
    yield "open", 0, target.open
    yield from _written(target, every=2)
    yield "open fresh", LAST, lambda: target.open(fresh=True)
    yield from _written(target, every=5)
    yield "close", LAST, target.close


def _written(target: Target, every: int) -> Iterator[Call]:
    pending: list[tuple[int, Commit]] = []
    for number, transaction in enumerate(TRANSACTIONS, 1):
        for change in transaction:
            yield "apply", number, lambda change=change: target.apply(change)
        if pending:
            begun, commit = pending.pop()
            yield "finish", begun, lambda commit=commit, number=number: commit.finish(gtids(number))
        elif number % every == 0 or number == LAST:
            state = TableState.STREAMING if every == 2 or number == LAST else TableState.COPYING
            yield "commit", number, lambda number=number, state=state: pending.append((number, target.commit(checkpoint(number, state))))
            if number == LAST:
                begun, commit = pending.pop()
                yield "finish", begun, lambda commit=commit: commit.finish(gtids(LAST))


def _write(place: Place, kill_before: int) -> None:
    for number, (_, _, call) in enumerate(calls(place.target())):
        if number == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        call()


def _go_on(place: Place) -> None:
    """Check what is there, go on from it to the end, and check that."""
    try:
        with closing(place.reader()) as reader:
            assert_snapshot(reader)
            expected = goes_on_from(reader)
    except NothingHeld:
        expected = None
    with closing(place.target()) as target:
        held = target.open()
        assert held == expected
        for change in changes(number_of(held.position.gtids) if held else 0):
            target.apply(change)
        target.commit(checkpoint(LAST)).finish(gtids(LAST))
    with closing(place.reader()) as reader:
        assert assert_snapshot(reader) == LAST
        assert goes_on_from(reader) == reader.checkpoint


def main(kind: str, folder: Path) -> None:
    """Kill before every call, until one run comes to its end."""
    reached = -1
    for kill_before in count():
        place = Place(kind, folder / str(kill_before))
        (folder / str(kill_before)).mkdir()
        child = os.fork()
        if not child:
            _write(place, kill_before)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            print(kill_before)
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        try:
            with closing(place.reader()) as reader:
                published = number_of(reader.checkpoint.position.gtids)
        except NothingHeld:
            published = -1
        assert published >= reached, "the checkpoint never goes back"
        reached = max(reached, published)
        _go_on(place)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
