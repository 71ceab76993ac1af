"""How fast a run copies and how fast it catches up, measured once each: what `auto` reckons with the next time."""

from __future__ import annotations

from dataclasses import replace

from cdc.model import Batch, Behind, Position, Rates

ENOUGH_BYTES = 16 << 20
"""Less than this of rows or of binlog is over before it has a speed: connecting takes a tenth of a second."""


class Throughput:
    """Counts what is applied; `rates` are the newest that were measured, `before` until then."""

    def __init__(self, before: Rates, behind: Behind | None) -> None:
        self.rates = before
        self._behind = behind if behind and behind.bytes >= ENOUGH_BYTES else None
        self._copied_rows = self._copied_bytes = self._streamed_rows = 0
        self._was_copying, self._copy_began = True, 0.0

    def count(self, batch: Batch) -> None:
        """A batch was applied."""
        if batch.backfill:
            self._copied_rows += len(batch)
            self._copied_bytes += batch.keys.size + batch.rows.size
        else:
            self._streamed_rows += len(batch)

    def forget_end(self) -> None:
        """Another server is followed: the binlog's end of then is not in its binlog."""
        self._behind = None

    def look(self, seconds: float, copying: bool, position: Position) -> None:
        """Look, so long after the run began, whether a copy has become complete or the binlog's end of then was reached.

        A run that copies and catches up at once tells neither the speed of the stream alone.
        """
        if self._was_copying and not copying and self._copied_bytes >= ENOUGH_BYTES:
            took = seconds - self._copy_began
            self.rates = replace(self.rates, copy_rows=self._copied_rows / took, copy_bytes=self._copied_bytes / took)
        if copying and not self._was_copying:  # tables were added
            self._copied_rows = self._copied_bytes = 0
            self._copy_began = seconds
        self._was_copying = copying
        if copying:
            self._behind = None
        if self._behind and position.reached(self._behind.end):
            rows, size = self._streamed_rows / seconds, self._behind.bytes / seconds
            self.rates, self._behind = replace(self.rates, stream_rows=rows, stream_bytes=size), None
