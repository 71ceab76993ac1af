"""Ctrl-C and SIGTERM: an interrupted command says so, and never looks like a result."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import cdc
from cdc.config import Config, SourceUrl, Strategy
from cdc.engine.migration import Migration, Start
from cdc.engine.strategy import Plan
from cdc.errors import TornTransaction
from cdc.model import (
    Batch,
    Checkpoint,
    ChunkRequest,
    Delivery,
    Item,
    LogEnd,
    Op,
    Position,
    SourceAway,
    TableChange,
    TableProgress,
    TableState,
)
from cdc.model.gtid import Gtids, GtidSet
from cdc.model.packed import Packed
from cdc.ops import interrupts
from tests.fix_migration import PATIENCE, end_process
from tests.states import OpenState
from tests.unit.simulated_source import TABLES, UUID, key_bytes, row_bytes

pytestmark = pytest.mark.waits

TABLE = TABLES[0]


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and sends no bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


def url(listener: socket.socket) -> str:
    return f"mysql://u:p@127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose copy is complete."""
    with OpenState(tmp_path) as target:
        progress = TableProgress(TABLE, TableState.STREAMING)
        target.commit_now(Checkpoint((UUID,), Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000001", 9), (progress,), 1.0))
    return tmp_path


@contextmanager
def running(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed in the end if it is still running."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        end_process(process)


COMMANDS = ["check", "migrate", "verify", "compare", "tail", "demo", "sandbox"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_interrupted_wait_for_a_server_ends_with_a_sentence(
    silent: socket.socket, state: Path, command: str, number: signal.Signals
) -> None:
    """130 for Ctrl-C, 143 for SIGTERM, an empty stdout: no command takes it for success."""
    source, tables = url(silent), ["--tables", str(TABLE.id)]
    arguments = {
        "check": [source, *tables], "migrate": [source, f"mapstore:{state}", *tables], "verify": [source, f"mapstore:{state}", "--json"],
        "compare": [source, *tables], "tail": [source, *tables],
    }  # fmt: skip
    environment = os.environ | {"CDC_SANDBOX": "given", "CDC_SANDBOX_MYSQL_URL": source}
    line = [sys.executable, "-m", "cdc", command, *arguments.get(command, [])]
    with running(line, environment) as process:
        connection, _ = silent.accept()
        with connection:
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
    if (command, number) == ("sandbox", signal.SIGTERM):
        assert process.returncode == 0, err  # its ordinary end
        return
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1].startswith("cdc: Interrupted."), err
    assert "Traceback" not in err
    assert "{" not in out


def test_interrupted_import_ends_with_a_sentence(tmp_path: Path) -> None:
    """Ctrl-C arrives while a library is imported, which sends it itself."""
    (tmp_path / "sqlalchemy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-m", "cdc", "status"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "cdc: Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_within_an_exception_dropping_import_ends_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """importlib's own callbacks drop exceptions."""
    lines = ("import os", "try:", f"    os.kill(os.getpid(), {number:d})", "    [None for _ in range(1000)]", "except BaseException: pass")
    (tmp_path / "sqlalchemy.py").write_text("\n".join(lines))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-m", "cdc", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "cdc: Interrupted.\n")


def test_interrupted_verify_raises(silent: socket.socket, state: Path) -> None:
    """An empty or short list of differences would read as identical."""
    program = f"import pathlib, cdc; print(cdc.verify(cdc.parse_source({url(silent)!r}), pathlib.Path({str(state)!r})))"
    with running([sys.executable, "-c", program], os.environ) as process:
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert err.splitlines()[-1] == "KeyboardInterrupt"


# the last checkpoint of a migration


class Source:
    """Sends one change, runs the given action, then is idle."""

    def __init__(self, then: Callable[[], None], *, whole: bool = True) -> None:
        position = Position(GtidSet.parse(f"{UUID}:1-6"), "binlog.000001", 20) if whole else None
        batch = Batch(TABLE.id, bytes((Op.UPSERT,)), Packed.of([key_bytes(1)]), Packed.of([row_bytes(1, "v")]))
        self._items, self._then = [Delivery((batch,), position, transactions=1)], then

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: object) -> None: ...

    def request(self, chunk: ChunkRequest) -> None: ...

    def next(self, timeout: float) -> Item | None:
        if self._items:
            return self._items.pop()
        self._then()
        return None

    def log_end(self) -> LogEnd:
        return LogEnd("binlog.000001", 10_000)


class Target:
    """Keeps the checkpoints; `on_commit` is called before each but the first."""

    def __init__(self, on_commit: Callable[[], None] = lambda: None) -> None:
        self.checkpoints: list[Checkpoint] = []
        self._on_commit = on_commit

    def apply(self, change: Batch | TableChange) -> None: ...

    def open(self, *, fresh: bool = False) -> None: ...

    def close(self) -> None: ...

    def commit(self, checkpoint: Checkpoint) -> Target:
        if self.checkpoints:
            self._on_commit()
        self.checkpoints.append(checkpoint)
        return self

    def done(self) -> bool:
        return True

    def finish(self, applied: Gtids) -> None: ...


def signalled(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def migration(source: Source, target: Target) -> Migration:
    config = Config(SourceUrl("h", 1, "u"), Path("x"), (TABLE.id,), checkpoint_seconds=3600.0)
    position = Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000001", 9)
    start = Start(Plan(Strategy.INCREMENTAL, "why"), (UUID,), position, [TableProgress(TABLE, TableState.STREAMING)])
    return Migration(config, source, target, start)


def test_first_ctrl_c_saves_a_last_checkpoint() -> None:
    """It is acknowledged at once, and the error says what was done."""
    said: list[str] = []
    target = Target()
    with pytest.raises(cdc.Interrupted, match="The last checkpoint is saved") as error:
        interrupts.run(migration(Source(signalled(signal.SIGINT)), target), until_caught_up=False, say=said.append)
    assert said == [interrupts.STOPPING + interrupts.PRESS_AGAIN]
    assert str(target.checkpoints[-1].position.gtids) == f"{UUID}:1-6"
    assert error.value.exit_code == 130
    assert error.value.report
    assert (error.value.report.stopped_by, error.value.report.rows_streamed) == ("SIGINT", 1)


def test_second_ctrl_c_names_the_loss_and_the_remaining_checkpoint() -> None:
    """It arrives while the last checkpoint is saved."""
    target = Target(on_commit=signalled(signal.SIGINT))
    lost = rf"without a last checkpoint: 1 rows and changes .* not kept.* stays, at {UUID}:1-5"
    with pytest.raises(cdc.Interrupted, match=lost) as error:
        interrupts.run(migration(Source(signalled(signal.SIGINT)), target), until_caught_up=False, say=lambda _: None)
    assert error.value.report is None
    assert len(target.checkpoints) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_repeated_sigterm_lets_the_last_checkpoint_complete(number: signal.Signals) -> None:
    """`timeout` sends each twice; the sentence for a person at the keyboard is left out."""
    said: list[str] = []
    target = Target(on_commit=lambda: [os.kill(os.getpid(), number) for _ in range(3)])  # type: ignore[func-returns-value]
    with interrupts.ended_by_sigterm():
        report = interrupts.run(migration(Source(signalled(signal.SIGTERM)), target), until_caught_up=False, say=said.append)
        os.kill(os.getpid(), number)  # while the report is printed
    try:
        os.kill(os.getpid(), number)  # while the process ends
    finally:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
    assert said == [interrupts.STOPPING]
    assert report.stopped_by == "SIGTERM"
    assert str(target.checkpoints[-1].position.gtids) == f"{UUID}:1-6"


@pytest.mark.parametrize("until_caught_up", [False, True])
def test_sigterm_is_the_ordinary_end_of_following(*, until_caught_up: bool) -> None:
    """For a run with --until-caught-up it is not."""
    run = migration(Source(signalled(signal.SIGTERM)), Target())
    if until_caught_up:
        with pytest.raises(cdc.Interrupted) as error:
            interrupts.run(run, until_caught_up=True, say=lambda _: None)
        assert error.value.exit_code == 143
    else:
        assert interrupts.run(run, until_caught_up=False, say=lambda _: None).stopped_by == "SIGTERM"


def test_stop_during_a_rollback_to_the_checkpoint_still_stops() -> None:
    """A run that goes back to its last checkpoint keeps the request to end."""

    def torn() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise TornTransaction("another server took over")

    with pytest.raises(cdc.Interrupted, match="without a last checkpoint"):
        interrupts.run(migration(Source(torn), Target()), until_caught_up=False, say=lambda _: None)


def test_stop_within_an_unfinished_transaction_claims_no_checkpoint() -> None:
    """The source is away, so the run ends without the half that it has."""

    class Away(Source):
        def next(self, timeout: float) -> Item | None:
            if found := super().next(timeout):
                return found
            return SourceAway("the source is away")

    target = Target()
    with pytest.raises(cdc.Interrupted, match="1 rows and changes") as found:
        interrupts.run(migration(Away(signalled(signal.SIGINT), whole=False), target), until_caught_up=False, say=lambda _: None)
    assert found.value.report is None
    assert len(target.checkpoints) == 1


def test_interruption_passes_through_except_exception() -> None:
    """`except CdcError` and `except Exception`, as around a retry, let it pass."""
    assert issubclass(cdc.Interrupted, KeyboardInterrupt)
    assert not issubclass(cdc.Interrupted, Exception)
