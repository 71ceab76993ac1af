"""When a checkpoint is due: by seconds or bytes, whichever passes first, and never for more than a tenth of the time."""

from __future__ import annotations

from cdc.engine.checkpoint_schedule import CheckpointSchedule

LATER = 1e6
NO_LIMIT = 1 << 60


def committed_at(now: float, seconds: float, size: int, *, took: float = 0.0) -> CheckpointSchedule:
    schedule = CheckpointSchedule(seconds, size)
    schedule.begun()
    schedule.committed(now - took, now)
    return schedule


def test_the_first_is_due_at_once() -> None:
    """Nothing is saved yet."""
    assert CheckpointSchedule(5.0, 100).due(0.0)


def test_it_is_due_when_the_seconds_have_passed_though_nothing_was_applied() -> None:
    """So that the position of a source on which other tables are changed moves on."""
    schedule = committed_at(LATER, 5.0, 100)
    assert not schedule.due(LATER + 4.9)
    assert schedule.due(LATER + 5.0)


def test_it_is_due_when_the_bytes_are_applied_though_no_time_has_passed() -> None:
    """Counted since the last one was begun: what is applied while that is saved belongs to the next."""
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


def test_one_that_takes_long_is_begun_after_ten_times_as_long_whatever_was_applied() -> None:
    """A large map is not written all the time."""
    schedule = committed_at(LATER, 5.0, 100, took=2.0)
    schedule.applied(NO_LIMIT)
    assert not schedule.due(LATER + 19.9)
    assert schedule.due(LATER + 20.0)


def test_with_no_seconds_it_is_always_due() -> None:
    """For tests, and for those who want every step saved, whatever it costs."""
    assert committed_at(LATER, 0.0, NO_LIMIT, took=2.0).due(LATER)
