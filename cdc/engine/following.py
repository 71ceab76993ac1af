"""Where the stream of a source is: the position, whether a transaction is half applied, whether the source is away or at its end.

`Migration`, `Changes` and `cdc compare` read a source for different ends; this part is the same for all of them. It stores nothing, and
raises TornTransaction without deciding what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from cdc.errors import TornTransaction
from cdc.model import Delivery, Item, LogEnd, Position, SourceAway, SourceChanged

TICK = 0.25
"""Longest wait in seconds for the next item; then commands and checkpoints have their turn."""


class Items(Protocol):
    """The part of a started source that gives items."""

    def next(self, timeout: float) -> Item | None:
        """The next item, None after `timeout` seconds without one."""

    def log_end(self) -> LogEnd | None:
        """Where the binlog ends now, None while the source is away."""


class StreamPosition:
    """Up to where the stream was applied: the `position` after the last complete transaction, and whether another one is half applied."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.in_transaction = False
        """Whether a part of a large transaction was applied and its end has not come."""

    def advance(self, delivery: Delivery) -> None:
        """All of a delivery is applied."""
        if delivery.position is None or delivery.transactions:  # a new connection begins with where it is, within a transaction too
            self.in_transaction = delivery.position is None
        self.position = delivery.position or self.position

    def change_server(self, change: SourceChanged) -> None:
        """Another server takes over. The file and offset are void: they were the old server's.

        Raises TornTransaction in the middle of a transaction: the parts that were applied count only with its end, which may never come.
        """
        if self.in_transaction:
            raise TornTransaction(
                f"{change.address} took over in the middle of a transaction, parts of which have come.",
                hint="Continue from the last checkpoint or position: it lies before that transaction.",
            )
        self.position = Position(self.position.gtids)


class Following:
    """Takes the items of a source. `at` is where the stream is; the caller advances it when it has applied a delivery."""

    def __init__(self, source: Items, at: StreamPosition) -> None:
        self._source, self.at = source, at
        self.waiting = ""
        """Why nothing comes at the moment; empty while the source delivers."""
        self._goal: LogEnd | None = None

    def take(self, item: Item | None) -> None:
        """Note what an item says about the stream. Raises TornTransaction."""
        match item:
            case SourceAway():
                self.waiting = item.reason
            case SourceChanged():
                self.at.change_server(item)
                self._goal = None
            case Delivery():
                self.waiting = ""

    def at_end(self) -> bool:
        """Whether the stream has reached the end that the binlog had at the first call, or at the first call after a fail-over."""
        self._goal = self._goal or self._source.log_end()
        return self._goal is not None and self.at.position.reached(self._goal)

    def deliveries(self, ended: Callable[[], bool]) -> Iterator[Delivery]:
        """Deliveries until `ended`, and until the end of a transaction. A delivery counts as applied when the next one is asked for."""
        while self.at.in_transaction or not ended():
            self.take(item := self._source.next(TICK))
            if isinstance(item, Delivery):
                yield item
                self.at.advance(item)
