"""Measures the servers' load for a running migration, and reads the config file again when asked; both become commands.

A thread of its own, so that a server that does not answer, or a file on a slow disk, never holds up the stream.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from cdc.config import SourceUrl
from cdc.engine.commands import Commands, Follow, SetLimits, SetLoad
from cdc.errors import CdcError, Temporary
from cdc.model import Table, TableId
from cdc.model.selection import Selection, is_pattern
from cdc.mysql import preflight
from cdc.mysql.connection import Connection
from cdc.mysql.load_probe import LoadProbe
from cdc.mysql.schema import read_table
from cdc.mysql.server_errors import explained
from cdc.ops.config_file import ConfigFile, Settings

SECONDS = 1.0
"""Seconds between two measurements."""


class Supervisor:
    """A context manager: entry measures the load once and raises CdcError if that fails; exit ends the thread.

    `source` gives the server that is followed now; measurements and settings go into `commands`; `say` gets a sentence for a person, from
    any thread. `stored` gives the name under which the source stores a table of this name.
    """

    def __init__(
        self,
        source: Callable[[], SourceUrl],
        settings: Settings,
        file: ConfigFile | None,
        *,
        followed: Selection,
        commands: Commands,
        say: Callable[[str], None],
        stored: Callable[[TableId], TableId] = lambda name: name,
    ) -> None:
        self._source, self._file, self._commands, self._say = source, file, commands, say
        self._stored = stored
        self._settings = self._as_stored(settings)
        """The settings as read last."""
        self._tables = set(followed.wanted)
        """Names and patterns that are followed already, or requested."""
        self._probe = LoadProbe(source)
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """True: read the file again; False: end. A queue, because `put` is safe in a signal handler."""
        self._thread = threading.Thread(target=self._work, name="cdc-supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._commands.put(SetLoad(self._probe.read(self._settings.limits, strict=True)))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(False)
        self._probe.close()
        self._thread.join(SECONDS)  # a thread that waits for a hanging server ends with the process

    def reload(self) -> None:
        """Ask for the file to be read again. Safe to call from a signal handler."""
        self._asked.put(True)

    def _work(self) -> None:
        while True:
            try:
                if not self._asked.get(timeout=SECONDS):
                    return
                self._reload()
            except queue.Empty:
                self._commands.put(SetLoad(self._probe.read(self._settings.limits)))

    def _reload(self) -> None:
        """Apply the file as it is now, as a whole or not at all."""
        assert self._file
        self._probe.close()  # the file may name other servers
        try:
            settings = self._as_stored(self._file.read())
            load = self._probe.read(settings.limits, strict=True)
        except CdcError as error:
            self._say(f"warning: the settings stay as they were. {error}")
            return
        self._commands.put(SetLimits(settings.limits, load))
        self._say(f"limits now: {settings.limits}")
        self._compare(settings)

    def _as_stored(self, settings: Settings) -> Settings:
        """The settings with names as the source stores them."""
        tables, exclude = (tuple(dict.fromkeys(map(self._stored, names))) for names in (settings.tables, settings.exclude))
        return replace(settings, tables=tables, exclude=exclude)

    def _compare(self, settings: Settings) -> None:
        """Follow tables that are new in the file, and say what else has changed."""
        for name in sorted(self._tables.intersection(self._settings.tables).difference(settings.tables)):
            self._say(f"{name} is not in the config file any more, and followed on: to leave it out, restart with --drop-table {name}.")
        if set(settings.exclude) != set(self._settings.exclude):
            self._say("warning: exclude has changed in the config file: that counts from the next start on.")
        new = [name for name in settings.tables if name not in self._tables]
        for name in filter(is_pattern, new):
            self._say(f"warning: the pattern {name} is new in the config file: it counts from the next start on.")
        if added := [name for name in new if not is_pattern(name)]:
            self._tables.update(added)
            self._commands.put(Follow(tuple(added)))
        self._settings = settings

    def admit(self, connection: Connection, name: TableId) -> Table | None:
        """The definition of a table to follow from now on; None, and a warning, if it cannot be migrated. Runs in the stream's thread."""
        try:
            with explained(self._source()):
                preflight.require(preflight.run(connection, [name]))
                table = read_table(connection, name)
        except Temporary:
            raise
        except CdcError as error:
            self._tables.discard(name)  # the next reload tries again
            self._say(f"warning: {name} is not added. {error}")
            return None
        return table


@contextmanager
def reloaded_by_signal(reload: Callable[[], None] | None) -> Iterator[None]:
    """SIGHUP calls `reload` within the block; without a `reload` it keeps its meaning."""
    if reload is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda *_: reload())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
