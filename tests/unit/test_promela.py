"""spin checks the model of the hand-over, and catches missing parts."""

from __future__ import annotations

import pytest

from cdc.errors import SandboxUnavailable
from tests.promela import PARTS, as_expected, search, spin


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        spin()
    except (SandboxUnavailable, OSError) as error:
        pytest.skip(f"neither spin on PATH nor Debian's package can be used: {error}")


@pytest.mark.parametrize("leave_out", PARTS, ids=lambda leave_out: leave_out or "all of it")
def test_model_holds_in_every_state_and_needs_every_part(leave_out: str) -> None:
    """All states are searched and every statement is reached; without a part, a run breaks the claim."""
    result = search(leave_out)
    assert as_expected(leave_out, result), result.printed
