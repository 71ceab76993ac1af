"""How fast a run copies and how fast it catches up, each measured once. The strategy `auto` of the next run uses these rates."""

from __future__ import annotations

from dataclasses import replace

from cdc.model import Backfill, Batch, Behind, Position, Rates

ENOUGH_BYTES = 16 << 20
"""Less than this gives no useful rate: connecting alone takes a tenth of a second."""


class Throughput:
    """Counts applied rows and bytes. `rates` are the last measured ones; until the first measurement those `before`."""

    def __init__(self, before: Rates, behind: Behind | None) -> None:
        self.rates = before
        self._behind = behind if behind and behind.bytes >= ENOUGH_BYTES else None
        self._copied_rows = self._copied_bytes = self._streamed_rows = 0
        self._was_copying, self._copy_began = True, 0.0

    def count(self, batch: Batch) -> None:
        """A batch was applied."""
        if isinstance(batch.origin, Backfill):
            self._copied_rows += len(batch)
            self._copied_bytes += batch.keys.size + batch.rows.size
        else:
            self._streamed_rows += len(batch)

    def forget_end(self) -> None:
        """Another server has taken over: the end that was measured against is in the old server's binlog."""
        self._behind = None

    def look(self, seconds: float, copying: bool, position: Position) -> None:
        """Take the rates if the copy is complete now, or the binlog's end as of the start is reached; `seconds` since the run began.

        A run that copies and streams at the same time measures no rate of the stream.
        """
        if self._was_copying and not copying and self._copied_bytes >= ENOUGH_BYTES:
            took = seconds - self._copy_began
            self.rates = replace(self.rates, copy_rows=self._copied_rows / took, copy_bytes=self._copied_bytes / took)
        if copying and not self._was_copying:  # tables have been added
            self._copied_rows = self._copied_bytes = 0
            self._copy_began = seconds
        self._was_copying = copying
        if copying:
            self._behind = None
        if self._behind and position.reached(self._behind.end):
            rows, size = self._streamed_rows / seconds, self._behind.bytes / seconds
            self.rates, self._behind = replace(self.rates, stream_rows=rows, stream_bytes=size), None
