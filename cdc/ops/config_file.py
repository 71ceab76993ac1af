"""The config file: what may change while a migration runs, its limits and its tables. Reads TOML; whether it can be done is not asked here.

    tables = ["shop.orders", "shop.lines", "archive.*"]
    exclude = ["archive.log_*"]

    [limits]
    max-rows-per-second = 20_000
    replica = "mysql://cdc@replica:3306/"
    max-replica-lag = 5

No sentence about it quotes a value: a replica's URL may hold a password.
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
    """What the command line and the config file say together."""

    limits: Limits
    tables: tuple[TableId, ...]
    exclude: tuple[TableId, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config file, and what was given on the command line, which counts where both say something. Tables and exclusions add up.

    Without a `path` there is only the command line.
    """

    path: Path | None
    limits: Mapping[str, Any]
    """By the names of `Limits`; None where nothing was given."""
    tables: tuple[TableId, ...]
    environ: Mapping[str, str]
    exclude: tuple[TableId, ...] = ()

    def read(self) -> Settings:
        """Read it anew. Raises ConfigError with one sentence that says where it is at fault."""
        if self.path is None:
            return self._settings({}, [], [])
        found = self._parsed(self.path)
        self._only(found, {"tables", "exclude", "limits"}, "")
        table = found.get("limits", {})
        names, left_out = (self._names(found, key) for key in ("tables", "exclude"))
        if not isinstance(table, dict):
            raise self._fault("limits is no table.", "Write [limits] on a line of its own, and the limits below it.")
        self._only(table, {_spelled(each.name) for each in fields(Limits)}, "limits.")
        try:
            return self._settings(
                {each.name: self._limit(each.name, table.get(_spelled(each.name))) for each in fields(Limits)}, names, left_out
            )
        except ConfigError as error:
            raise self._fault(error.message, error.hint) from None

    def _names(self, found: Mapping[str, Any], key: str) -> list[str]:
        names = found.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._fault(f"{key} is no list of names.", f'Write {key} = ["shop.orders", "shop.lines"].')
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
            raise self._fault("it is no UTF-8 text.", "Save it as UTF-8.") from None
        except tomllib.TOMLDecodeError as error:  # its text may quote the file
            place = re.search(r"line \d+, column \d+", str(error))
            raise self._fault(f"{place[0] if place else 'its end'} is no TOML.", _EXAMPLE) from None
        except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists without end, a NUL in the path
            raise self._fault("it cannot be read.", _EXAMPLE) from None

    def _only(self, found: Mapping[str, Any], known: set[str], prefix: str) -> None:
        for name in found.keys() - known:
            raise self._fault(f"{prefix}{name} is no setting.", f"There are {', '.join(prefix + each for each in sorted(known))}.")

    def _limit(self, name: str, value: object) -> object:
        """A limit as `Limits` wants it."""
        if value is None:
            return None
        if name == "replica":
            if isinstance(value, str):
                return SourceUrl.of_replica(value, self.environ)
            raise ConfigError("replica is no text.", hint='Write replica = "mysql://user@host:3306/".')
        whole = name != "max_replica_lag"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 1 <= value < math.inf:
            kind = "whole number" if whole else "number of seconds"
            raise ConfigError(f"{_spelled(name)} is no {kind} from 1 on.", hint=f"Write {_spelled(name)} = 1000, or leave the line out.")
        return value

    def _fault(self, message: str, hint: str) -> ConfigError:
        return ConfigError(f"In the config file {self.path}: {message}", hint=hint)


_EXAMPLE = """It looks like this:
  tables = ["shop.orders", "shop.l*"]
  [limits]
  max-rows-per-second = 20000"""


def _spelled(name: str) -> str:
    """As on the command line."""
    return name.replace("_", "-")
