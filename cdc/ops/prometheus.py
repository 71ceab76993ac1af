"""A running migration's figures for Prometheus. Reads what others count, at the moment it is asked.

The names and what they mean are in docs/reference.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc.engine.migration import Migration
from cdc.engine.throttle import Throttle
from cdc.model import TableId, TableState

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds at which the histogram's buckets end."""


class _Source(Protocol):
    @property
    def bytes_received(self) -> int: ...


class _Target(Protocol):
    def stats(self) -> dict[TableId, dict[str, int]]: ...


class Exporter(Collector):
    """The figures of one run. Asked from another thread: it reads single values and copies, and changes nothing."""

    def __init__(self, migration: Migration, source: _Source, target: _Target, throttle: Throttle) -> None:
        self._migration, self._source, self._target, self._throttle = migration, source, target, throttle

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        yield from self._progress()
        yield from self._lag()
        yield from self._checkpoints()
        yield from self._held_back()
        yield from self._store()

    def _progress(self) -> Iterator[Metric]:
        report, handover = self._migration.report, self._migration.handover
        yield CounterMetricFamily("cdc_rows_copied", "Rows of chunks in this run.", value=handover.rows_copied)
        yield CounterMetricFamily("cdc_rows_streamed", "Changes of rows in this run.", value=report.rows_streamed)
        yield CounterMetricFamily("cdc_transactions", "Transactions applied in this run.", value=report.transactions)
        yield CounterMetricFamily("cdc_received_bytes", "Bytes received from the source in this run.", value=self._source.bytes_received)
        yield CounterMetricFamily("cdc_reconnects", "How often the source was away and came back.", value=report.reconnects)
        yield GaugeMetricFamily("cdc_chunks_in_flight", "Chunks asked for and not applied.", value=handover.in_flight)
        tables = GaugeMetricFamily("cdc_tables", "Tables by their state.", labels=["state"])
        states = [each.state for each in list(handover.progress.values())]
        for state in TableState:
            tables.add_metric([state.value], states.count(state))
        yield tables

    def _lag(self) -> Iterator[Metric]:
        lag = self._migration.lag
        yield GaugeMetricFamily("cdc_lag_seconds", "How far the target is behind the source.", value=lag.now)
        histogram = HistogramMetricFamily("cdc_transaction_lag_seconds", "From commit on the source to applied on the target.")
        names = [*map(str, LAG_BOUNDS), "+Inf"]
        histogram.add_metric([], list(zip(names, lag.histogram.cumulative(LAG_BOUNDS), strict=True)), lag.histogram.sum)
        yield histogram

    def _checkpoints(self) -> Iterator[Metric]:
        report = self._migration.report
        yield CounterMetricFamily("cdc_checkpoints", "Checkpoints of this run.", value=report.checkpoints)
        age = time.time() - report.checkpointed_at if report.checkpointed_at else 0.0
        yield GaugeMetricFamily("cdc_checkpoint_age_seconds", "Since the last checkpoint.", value=age)
        yield GaugeMetricFamily("cdc_checkpoint_duration_seconds", "How long the last one took.", value=report.checkpoint_seconds)

    def _held_back(self) -> Iterator[Metric]:
        seconds = CounterMetricFamily("cdc_throttled_seconds", "For how long what has held the copy back.", labels=["cause"])
        now = GaugeMetricFamily("cdc_throttled", "What holds the copy back now: 1.", labels=["cause"])
        for cause, so_long in self._throttle.seconds.items():
            seconds.add_metric([cause], so_long)
            now.add_metric([cause], cause == self._throttle.cause)
        yield from (seconds, now)

    def _store(self) -> Iterator[Metric]:
        figures = {"count": "Rows held.", "bytes": "Bytes allocated.", "old_chains_left": "Chains that a growing map has yet to move."}
        names = {"count": "rows", "bytes": "bytes", "old_chains_left": "chains_to_move"}
        stats = self._target.stats()
        for figure, text in figures.items():
            family = GaugeMetricFamily(f"cdc_store_{names[figure]}", text, labels=["table"])
            for table, counted in stats.items():
                family.add_metric([str(table)], counted[figure])
            yield family
