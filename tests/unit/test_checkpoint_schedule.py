"""When a checkpoint is due: by seconds or bytes, whichever passes first, and for at most a tenth of the time."""

from __future__ import annotations

from cdc.engine.checkpoint_schedule import CheckpointSchedule

LATER = 1e6
NO_LIMIT = 1 << 60


def committed_at(now: float, seconds: float, size: int, *, took: float = 0.0) -> CheckpointSchedule:
    schedule = CheckpointSchedule(seconds, size)
    schedule.begun()
    schedule.committed(now - took, now)
    return schedule


def test_first_checkpoint_is_due_at_once() -> None:
    """No checkpoint is saved yet."""
    assert CheckpointSchedule(5.0, 100).due(0.0)


def test_checkpoint_is_due_after_seconds_without_changes() -> None:
    """The position of a source on which other tables change moves on."""
    schedule = committed_at(LATER, 5.0, 100)
    assert not schedule.due(LATER + 4.9)
    assert schedule.due(LATER + 5.0)


def test_checkpoint_is_due_after_bytes_without_time() -> None:
    """Counted from the beginning of the last one: bytes applied during its saving belong to the next."""
    schedule = committed_at(LATER, 5.0, 100)
    schedule.applied(60)
    assert not schedule.due(LATER)
    schedule.applied(40)
    assert schedule.due(LATER)
    schedule.begun()
    schedule.applied(99)
    schedule.committed(LATER, LATER)
    assert not schedule.due(LATER + 4.9)
    schedule.applied(1)
    assert schedule.due(LATER)


def test_slow_checkpoint_delays_the_next_tenfold() -> None:
    """For any number of applied bytes, so that a large map is not written all the time."""
    schedule = committed_at(LATER, 5.0, 100, took=2.0)
    schedule.applied(NO_LIMIT)
    assert not schedule.due(LATER + 19.9)
    assert schedule.due(LATER + 20.0)


def test_zero_seconds_make_a_checkpoint_always_due() -> None:
    """For tests, and for users who want every step saved."""
    assert committed_at(LATER, 0.0, NO_LIMIT, took=2.0).due(LATER)
