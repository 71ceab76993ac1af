"""The config file: the limits and tables of a migration, which may change while it runs. Reads TOML and asks no server.

    tables = ["shop.orders", "shop.lines", "archive.*"]
    exclude = ["archive.log_*"]

    [limits]
    max-rows-per-second = 20_000
    replica = "mysql://cdc@replica:3306/"
    max-replica-lag = 5

Error messages never quote a value: a replica's URL may hold a password.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cdc.config import Limits, SourceUrl, parse_table
from cdc.errors import ConfigError
from cdc.model import TableId


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line and the config file combined."""

    limits: Limits
    tables: tuple[TableId, ...]
    exclude: tuple[TableId, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file and the command line, which overrides the file's limits; tables and exclusions of both add up.

    `path` is None where only the command line counts.
    """

    path: Path | None
    limits: Mapping[str, Any]
    """The command line's limits by the names of `Limits`; None where an option was not given."""
    tables: tuple[TableId, ...]
    environ: Mapping[str, str]
    exclude: tuple[TableId, ...] = ()

    def read(self) -> Settings:
        """Read the file anew. Raises ConfigError, whose message names the file and the place."""
        if self.path is None:
            return self._settings({}, [], [])
        given = self._parsed(self.path)
        self._only(given, {"tables", "exclude", "limits"}, "")
        table = given.get("limits", {})
        names, left_out = (self._names(given, key) for key in ("tables", "exclude"))
        if not isinstance(table, dict):
            raise self._fault("`limits` is not a table.", "Write [limits] on a line of its own, with the limits below it.")
        self._only(table, {_spelled(limit.name) for limit in fields(Limits)}, "limits.")
        try:
            return self._settings(
                {limit.name: self._limit(limit.name, table.get(_spelled(limit.name))) for limit in fields(Limits)}, names, left_out
            )
        except ConfigError as error:
            raise self._fault(error.message, error.hint) from None

    def _names(self, given: Mapping[str, Any], key: str) -> list[str]:
        names = given.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._fault(f"`{key}` is not a list of names.", f'Write {key} = ["shop.orders", "shop.lines"].')
        return names

    def _settings(self, limits: dict[str, Any], names: list[str], left_out: list[str]) -> Settings:
        given = {name: value for name, value in self.limits.items() if value is not None}
        tables, exclude = (*self.tables, *map(parse_table, names)), (*self.exclude, *map(parse_table, left_out))
        return Settings(Limits(**(limits | given)), tuple(dict.fromkeys(tables)), tuple(dict.fromkeys(exclude)))

    def _parsed(self, path: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.", hint="Check --config.") from error
        except UnicodeDecodeError:
            raise self._fault("it is not UTF-8.", "Save it as UTF-8.") from None
        except tomllib.TOMLDecodeError as error:  # its text may quote the file
            place = re.search(r"line \d+, column \d+", str(error))
            raise self._fault(f"it is not valid TOML at {place[0] if place else 'its end'}.", _EXAMPLE) from None
        except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists without end, a NUL in the path
            raise self._fault("it cannot be read.", _EXAMPLE) from None

    def _only(self, given: Mapping[str, Any], known: set[str], prefix: str) -> None:
        for name in given.keys() - known:
            names = ", ".join(prefix + setting for setting in sorted(known))
            raise self._fault(f"unknown setting `{prefix}{name}`; known are {names}.", "Rename or remove it.")

    def _limit(self, name: str, value: object) -> object:
        """A limit as `Limits` wants it."""
        if value is None:
            return None
        if name == "replica":
            if isinstance(value, str):
                return SourceUrl.of_replica(value, self.environ)
            raise ConfigError("`replica` is not a string.", hint='Write replica = "mysql://user@host:3306/".')
        whole = name != "max_replica_lag"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 1 <= value < math.inf:
            kind = "whole number" if whole else "number of seconds"
            raise ConfigError(
                f"`{_spelled(name)}` is not a {kind} of at least 1.", hint=f"Write {_spelled(name)} = 1000, or leave the line out."
            )
        return value

    def _fault(self, message: str, hint: str) -> ConfigError:
        return ConfigError(f"In the config file {self.path}: {message}", hint=hint)


_EXAMPLE = """It looks like this:
  tables = ["shop.orders", "shop.l*"]
  [limits]
  max-rows-per-second = 20000"""


def _spelled(name: str) -> str:
    """The name as the command line spells it."""
    return name.replace("_", "-")
