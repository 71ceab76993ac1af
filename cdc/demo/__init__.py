"""A demonstration on a throwaway server: load, migrate under writes, kill -9, resume, stop the writer, compare row by row.

At the end it measures full copy and incremental run on the same table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from cdc import api, compare
from cdc.compare import report
from cdc.config import SourceUrl, TargetUrl
from cdc.demo import shop
from cdc.engine.lag import milliseconds
from cdc.errors import CdcError, ConfigError, DifferencesFound
from cdc.model import Checkpoint, TableId, TableProgress, TableState
from cdc.mysql.connection import connect
from cdc.mysql.flavor import flavor_of
from cdc.sandbox import Sandbox
from cdc.targets import open_reader

TABLE = TableId("shop", "orders")
WRITES_PER_SECOND = 300
FOLLOW_SECONDS = 8
CHURN = (0.005, 0.2)
COPY_SECONDS = 5
"""How long the copy would take that is killed: a few checkpoints, however fast the machine is."""
KILL_AT = 0.3
"""The fraction of rows at which the first process is killed; its checkpoint must be past this."""
STEP_SECONDS = 120
"""Seconds after which a step counts as failed."""


def run(rows: int) -> None:
    """Run the demo with a table of `rows` rows. Raises DifferencesFound when source and target differ in the end."""
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cdc-demo-") as folder, _sandbox(console) as server:
        _Demo(console, api.parse_source(server), Path(folder) / "state", rows).run()
    console.print(f"The whole demo took {time.monotonic() - began:.0f} s; server and files are removed.")


@contextmanager
def _sandbox(console: Console) -> Iterator[str]:
    console.print("[bold]1. A throwaway MySQL server[/] (the first time its packages are fetched, which takes a minute or two)")
    with Sandbox.start("mysql", say=lambda text: console.print(f"   {text}")) as server:
        console.print(f"   running, from: {server.kind}")
        yield server.url


class _Demo:
    """The steps of one demo."""

    def __init__(self, console: Console, source: SourceUrl, state: Path, rows: int) -> None:
        self._console, self._source, self._state, self._rows = console, source, state, rows

    def run(self) -> None:
        say = self._console.print
        say(f"[bold]2. A table of {self._rows:,} orders[/] with thirteen columns of eleven types")
        admin = connect(self._source)
        shop.load(admin, TABLE, self._rows)
        say(f"[bold]3. A writer begins[/]: {WRITES_PER_SECOND} transactions/s of inserts, updates, deletes and key changes")
        with shop.Writer(self._source, TABLE, per_second=WRITES_PER_SECOND) as writer:
            say("[bold]4. cdc migrate[/] copies by primary key and follows the binlog, held back so that there is time for a kill")
            killed = self._kill_midway()
            say(f"[bold]5. kill -9[/] at {killed.rows_copied:,} rows in the checkpoint. The same command again:")
            process = self._migrate()
            with _ended(process):
                self._wait(process, "the copy's end", lambda checkpoint: _progress(checkpoint).state is TableState.STREAMING)
                time.sleep(FOLLOW_SECONDS)
                writer.stop()
                say(f"[bold]6. The writer stops[/] after {sum(writer.done.values()):,} changes ({_kinds(writer)})")
                end, _ = flavor_of(admin).gtids(admin)
                self._wait(process, "the writer's last transaction", lambda checkpoint: end <= checkpoint.position.gtids)
                last = self._stop(process)
        resumed = last["rows_copied"]
        say("[bold]7. Compare[/] source and map store, row by row, byte by byte")
        with closing(open_reader(TargetUrl.parse(self._state))) as reader:
            (difference,) = api.compare_quiet(self._source, reader, [TABLE])
            if not difference.identical:
                raise DifferencesFound(f"Source and target differ: {difference}.")
        lag = {name: milliseconds(value) for name, value in last["lag_ms"].items()}
        say(
            f"\n   rows copied        {killed.rows_copied:,} before the kill, {resumed:,} after it\n"
            f"   rows streamed      {last['rows_streamed']:,} in {last['transactions']:,} transactions, since the resume\n"
            f"   seconds            {last['seconds']:.1f}, of which {last['snapshot_seconds']:.1f} until the copy was complete\n"
            f"   lag                p50 {lag['p50']}, p99 {lag['p99']}, max {lag['max']} (since the kill)\n"
            f"   bytes received     {last['bytes_received']:,}, since the resume\n"
            f"   rows compared      {difference.rows:,}\n"
            f"   [bold]identical: yes[/]\n"
        )
        say(f"[bold]8. Full copy or incremental run?[/] Both, after {', '.join(f'{churn:.1%}' for churn in CHURN)} of the rows changed")
        report.show(compare.measure(self._source, [TABLE], churn=CHURN))
        say()

    def _migrate(self, *options: str) -> subprocess.Popen[str]:
        url = f"mysql://{self._source.user}@{self._source.host}:{self._source.port}/"
        command = [
            sys.executable,
            "-m",
            "cdc",
            "migrate",
            url,
            f"mapstore:{self._state}",
            "--tables",
            str(TABLE),
            "--checkpoint-seconds",
            "0.5",
            "--json",
            *options,
        ]
        environment = os.environ | {"CDC_SOURCE_PASSWORD": self._source.password}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, process_group=0)  # a Ctrl-C is ours

    def _kill_midway(self) -> TableProgress:
        process = self._migrate("--max-rows-per-second", str(max(1, round(self._rows / COPY_SECONDS))))
        with _ended(process):
            checkpoint = self._wait(
                process, "a checkpoint midway", lambda candidate: _progress(candidate).rows_copied >= KILL_AT * self._rows
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
        progress = _progress(self._checkpoint())
        if progress.state is not TableState.COPYING:
            raise CdcError(f"The copy of {self._rows:,} rows was over before it could be killed midway.", hint="Use more --rows.")
        return max(progress, _progress(checkpoint), key=lambda candidate: candidate.rows_copied)

    def _wait(self, process: subprocess.Popen[str], what: str, reached: Callable[[Checkpoint], bool]) -> Checkpoint:
        """Wait until the checkpoint satisfies `reached`; `what` names it in errors."""
        for _ in range(STEP_SECONDS * 20):
            if process.poll() is not None:
                raise CdcError(f"The migration ended with exit code {process.returncode} before {what}.")
            try:
                checkpoint = self._checkpoint()
            except ConfigError:
                checkpoint = None
            if checkpoint and reached(checkpoint):
                return checkpoint
            time.sleep(0.05)
        raise CdcError(f"The migration has not reached {what} within {STEP_SECONDS} s.")

    def _checkpoint(self) -> Checkpoint:
        with closing(open_reader(TargetUrl.parse(self._state))) as reader:
            return reader.checkpoint

    def _stop(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=STEP_SECONDS)
        if process.returncode:
            raise CdcError(f"The migration ended with exit code {process.returncode} when it was asked to stop.")
        return dict(json.loads(output.splitlines()[-1]))


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process with the block, in every case."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _progress(checkpoint: Checkpoint) -> TableProgress:
    return checkpoint.tables[0]


def _kinds(writer: shop.Writer) -> str:
    return ", ".join(f"{count:,} {kind}s" for kind, count in sorted(writer.done.items()))
