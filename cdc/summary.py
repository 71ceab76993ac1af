"""What commands print of their results. Measures nothing and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping

from cdc.metrics import milliseconds
from cdc.migration import Report


def migration(report: Report) -> str:
    """What a run did."""
    end = "caught up" if report.caught_up else "stopped, checkpoint saved"
    return (
        f"{end}: {report.rows_copied:,} rows copied in {report.snapshot_seconds:.1f} s, {report.rows_streamed:,} streamed in "
        f"{report.transactions:,} transactions, {report.seconds:.1f} s in all, {report.bytes_received:,} bytes received, "
        f"{lag(report.lag_ms)}\nposition {report.position}"
    )


def lag(figures: Mapping[str, float] | None) -> str:
    """A run's lag in words."""
    return "lag " + ", ".join(f"{name} {milliseconds(value)}" for name, value in (figures or {}).items())
