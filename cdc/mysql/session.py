"""What every session on the source sets, so that nothing depends on the server's own settings."""

from __future__ import annotations

SESSION = (
    # what makes a SELECT's bytes the binlog's bytes: no conversion of character sets, times in UTC, and a mode in which no
    # value is refused or padded when compared (zero dates are legal, CHAR stays trimmed, quotes mean what they say)
    "SET NAMES utf8mb4, character_set_results = NULL, time_zone = '+00:00', sql_mode = 'NO_ENGINE_SUBSTITUTION', net_write_timeout = 3600"
)
