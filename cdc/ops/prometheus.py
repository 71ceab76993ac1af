"""A running migration's figures for Prometheus, from the last status that it made.

The names and what they mean are in docs/reference.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc.engine.lag import BOUNDS
from cdc.engine.status import RunStatus
from cdc.model import TableState


class Exporter(Collector):
    """The figures of one run. `latest` gives its last status, from any thread."""

    def __init__(self, latest: Callable[[], RunStatus]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Every figure as of the last status; lag and the checkpoint's age go on since then."""
        status, now = self._latest(), time.time()
        yield from _progress(status)
        yield from _lag(status, now)
        yield from _checkpoints(status, now)
        yield from _throttling(status)
        yield from _memory(status)


def _progress(status: RunStatus) -> Iterator[Metric]:
    yield CounterMetricFamily("cdc_rows_copied", "Rows of chunks in this run.", value=status.rows_copied)
    yield CounterMetricFamily("cdc_rows_streamed", "Changes of rows in this run.", value=status.rows_streamed)
    yield CounterMetricFamily("cdc_transactions", "Transactions applied in this run.", value=status.transactions)
    yield CounterMetricFamily("cdc_received_bytes", "Bytes received from the source in this run.", value=status.bytes_received)
    yield CounterMetricFamily("cdc_reconnects", "How often the source was away and came back.", value=status.reconnects)
    yield GaugeMetricFamily("cdc_chunks_in_flight", "Chunks requested and not applied.", value=status.chunks_in_flight)
    tables = GaugeMetricFamily("cdc_tables", "Tables by their state.", labels=["state"])
    states = [table.state for table in status.tables]
    for state in TableState:
        tables.add_metric([state.value], states.count(state))
    yield tables


def _lag(status: RunStatus, now: float) -> Iterator[Metric]:
    yield GaugeMetricFamily("cdc_lag_seconds", "How far the target is behind the source.", value=status.lag.now(now))
    histogram = HistogramMetricFamily("cdc_transaction_lag_seconds", "From commit on the source to applied on the target.")
    names = [*map(str, BOUNDS), "+Inf"]
    histogram.add_metric([], list(zip(names, status.lag.buckets, strict=True)), status.lag.sum)
    yield histogram


def _checkpoints(status: RunStatus, now: float) -> Iterator[Metric]:
    yield CounterMetricFamily("cdc_checkpoints", "Checkpoints of this run.", value=status.checkpoints)
    age = now - status.checkpointed_at if status.checkpointed_at else 0.0
    yield GaugeMetricFamily("cdc_checkpoint_age_seconds", "Since the last checkpoint.", value=age)
    yield GaugeMetricFamily("cdc_checkpoint_duration_seconds", "How long the last one took.", value=status.checkpoint_seconds)


def _throttling(status: RunStatus) -> Iterator[Metric]:
    seconds = CounterMetricFamily("cdc_throttled_seconds", "How long each cause has held the copy back.", labels=["cause"])
    now = GaugeMetricFamily("cdc_throttled", "1 for the cause that holds the copy back now.", labels=["cause"])
    for cause, held in status.throttled_seconds.items():
        seconds.add_metric([cause], held)
        now.add_metric([cause], cause == status.throttled_by)
    yield from (seconds, now)


_STORE = {
    "count": ("rows", "Rows held."),
    "bytes": ("bytes", "Bytes allocated."),
    "old_chains_left": ("chains_to_move", "Chains that a growing map has yet to move."),
}
"""The figures of a MapStore that are exported: its own name for each, the metric's, and the help."""


def _memory(status: RunStatus) -> Iterator[Metric]:
    for figure, (name, text) in _STORE.items():
        family = GaugeMetricFamily(f"cdc_store_{name}", text, labels=["table"])
        for table, counted in status.memory.items():
            if figure in counted:
                family.add_metric([str(table)], counted[figure])
        yield family
