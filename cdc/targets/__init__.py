"""Targets by the scheme of their URL: the one door to all of them. A new target is one folder and one line here.

`open_target` is for writing, `open_reader` for reading. cdc/engine/interfaces.py defines what both return.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cdc.config import MAPSTORE, TARGET_FORM, TargetUrl
from cdc.engine.interfaces import Target, TargetReader
from cdc.errors import ConfigError
from cdc.targets.mapstore.reader import MapStoreReader
from cdc.targets.mapstore.target import MapStoreTarget

OpenTarget = Callable[[str], Target]
"""Makes a target from what follows the colon of its URL. It does not open it: it raises ConfigError where that place cannot be."""
OpenReader = Callable[[str], TargetReader]
"""Opens a snapshot of the same place. Raises NothingHeld where no checkpoint has been committed."""


@dataclass(frozen=True, slots=True)
class _Kind:
    target: OpenTarget
    reader: OpenReader


_KINDS = {
    MAPSTORE: _Kind(MapStoreTarget, MapStoreReader),
}


def register(scheme: str, target: OpenTarget, reader: OpenReader) -> None:
    """Make a target of your own known: `SCHEME:PLACE` then works wherever a target is named in this process."""
    _KINDS[scheme] = _Kind(target, reader)


def is_target(url: str) -> bool:
    """Whether a text begins with the scheme of a target."""
    return url.partition(":")[0] in _KINDS and ":" in url


def open_target(url: TargetUrl) -> Target:
    """The target at a URL, not yet opened. Raises ConfigError."""
    return _kind(url).target(url.place)


def open_reader(url: TargetUrl) -> TargetReader:
    """A snapshot of what the target at a URL holds. Raises ConfigError (NothingHeld where there is no checkpoint) or DamagedState."""
    return _kind(url).reader(url.place)


def _kind(url: TargetUrl) -> _Kind:
    if url.scheme not in _KINDS:
        known = ", ".join(f"{scheme}:" for scheme in _KINDS)
        raise ConfigError(f"The target starts with {url.scheme}:, and the known targets are {known}.", hint=TARGET_FORM)
    return _KINDS[url.scheme]
