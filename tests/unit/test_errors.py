"""Errors that need no server: the driver's errors become ours, and a damaged state differs from a missing one."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pymysql
import pytest

from cdc import api
from cdc.__main__ import main
from cdc.config import Config, SourceUrl
from cdc.engine.verify import Difference, DifferenceKind, Differences
from cdc.errors import CdcError, ConfigError, DamagedEvent, DamagedState, NothingHeld, PreflightFailed, Temporary, UnreadableAnswer
from cdc.model import Batch, Checkpoint, Op, Position, TableProgress
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from cdc.mysql.retry import Backoff
from cdc.mysql.server_errors import explain, explained
from tests.states import OpenState, read_state
from tests.unit.simulated_source import TABLES, UUID, key_bytes, row_bytes

URL = SourceUrl("db.example", 3306, "cdc", "hunter2")
TABLE = TABLES[0]


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (pymysql.OperationalError(1045, "Access denied"), ConfigError, "refuses the user 'cdc'"),
        (pymysql.OperationalError(1044, "Access denied to database"), PreflightFailed, "lacks a grant"),
        (pymysql.OperationalError(1142, "SELECT command denied"), PreflightFailed, "lacks a grant"),
        (pymysql.OperationalError(1227, "need REPLICATION CLIENT"), PreflightFailed, "need REPLICATION CLIENT"),
        (pymysql.OperationalError(2003, "Can't connect"), Temporary, "No MySQL server answers"),
        (pymysql.OperationalError(2006, "gone away"), Temporary, "was lost"),
        (pymysql.OperationalError(2013, "Lost connection"), Temporary, "was lost"),
        (pymysql.InterfaceError(0, ""), Temporary, "was lost: it is closed"),
        (pymysql.OperationalError(1927, "Connection was killed"), Temporary, "was lost"),
        (pymysql.OperationalError(1053, "Server shutdown in progress"), Temporary, "was lost"),
        (pymysql.OperationalError(1040, "Too many connections"), Temporary, "accepts no more connections: Too many connections"),
        (pymysql.OperationalError(1203, "'max_user_connections'"), Temporary, "accepts no more connections: 'max_user_connections'"),
        (pymysql.OperationalError(1226, "exceeded the 'max_questions' resource"), Temporary, "exceeded the 'max_questions' resource"),
        (pymysql.OperationalError(1129, "Host 'x' is blocked"), Temporary, "has blocked this host"),
        (pymysql.OperationalError(1205, "Lock wait timeout exceeded"), Temporary, "cannot answer now: Lock wait timeout"),
        (pymysql.OperationalError(1213, "Deadlock found"), Temporary, "cannot answer now"),
        (pymysql.OperationalError(3024, "maximum statement execution time"), Temporary, "cannot answer now"),
        (pymysql.OperationalError(1969, "max_statement_time exceeded"), Temporary, "cannot answer now"),
        (pymysql.OperationalError(3032, "The server is currently in offline mode"), Temporary, "offline mode"),
        (pymysql.OperationalError(1047, "WSREP has not yet prepared node for application use"), Temporary, "cannot answer now: WSREP"),
        (pymysql.OperationalError(1047, "Unknown command"), CdcError, "error 1047"),
        (pymysql.OperationalError(1862, "Your password has expired."), ConfigError, "password of the user 'cdc' has expired"),
        (pymysql.OperationalError(1820, "You must SET PASSWORD"), ConfigError, "password of the user 'cdc' has expired"),
        (
            pymysql.OperationalError(3118, "Account is locked."),
            ConfigError,
            "is locked on mysql://cdc@db.example:3306/: Account is locked. ",
        ),
        (pymysql.OperationalError(4151, "Access denied, this account is locked"), ConfigError, "ACCOUNT UNLOCK"),
        (pymysql.OperationalError(1130, "Host 'x' is not allowed to connect"), ConfigError, "does not allow connections from this host"),
        (pymysql.OperationalError(3159, "require_secure_transport=ON"), ConfigError, "ssl-mode=required"),
        (pymysql.OperationalError(1153, "Got a packet bigger"), PreflightFailed, "max_allowed_packet"),
        (pymysql.OperationalError(1184, "(init_connect command failed)"), PreflightFailed, "Fix its init_connect"),
        (pymysql.OperationalError(4082, "Connection memory limit"), PreflightFailed, "connection_memory_limit"),
        (pymysql.OperationalError(1290, "running with the --read-only option"), PreflightFailed, "--read-only"),
        (pymysql.OperationalError(1836, "Running in read-only mode"), PreflightFailed, "read-only mode"),
        (pymysql.ProgrammingError(1064, "syntax"), CdcError, "answered with error 1064: syntax"),
        (pymysql.InterfaceError("no code"), UnreadableAnswer, "no code"),
    ],
)
def test_driver_errors_become_ours(error: pymysql.MySQLError, expected: type[CdcError], words: str) -> None:
    """One class for each reaction of the caller, with the server's own words, and never the password."""
    found = explain(error, URL)
    assert type(found) is expected
    assert words in str(found)
    assert "hunter2" not in str(found)


def test_socket_errors_are_temporary_and_ours_pass_through() -> None:
    """The operating system's errors are the network's; an error of ours is not wrapped again."""
    with pytest.raises(Temporary, match="broke"), explained(URL):
        raise ConnectionResetError("reset by peer")
    with pytest.raises(ConfigError, match="as it is"), explained(URL):
        raise ConfigError("as it is")


@pytest.mark.waits
def test_backoff_ends_with_the_last_error() -> None:
    """After its time, and at once when the caller has stopped waiting."""
    away = Temporary("away")
    with pytest.raises(Temporary) as found:
        Backoff(threading.Event(), -1.0).wait(away)
    assert found.value is away
    closing = threading.Event()
    closing.set()
    with pytest.raises(Temporary):
        Backoff(closing, None).wait(away)


def test_repeated_damage_is_not_retried() -> None:
    """Another damage, or a lost connection in between, points to the link and is retried."""
    backoff = Backoff(threading.Event(), None)

    def damage(evidence: int) -> DamagedEvent:
        error = DamagedEvent("The binlog event after FILE:4 does not have the checksum that came with it.")
        error.evidence = evidence
        return error

    for error in (damage(1), damage(2), UnreadableAnswer("odd"), UnreadableAnswer("odder")):
        backoff.wait(error, 0.0)
    backoff.wait(Temporary("gone"), 0.0)
    for error in (damage(3), UnreadableAnswer("odd")):
        backoff.wait(error, 0.0)
        with pytest.raises(type(error)):
            backoff.wait(error, 0.0)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x"), NameError("x"), FileNotFoundError(2, "x", "file")])
def test_internal_errors_stay_visible(error: Exception) -> None:
    """They are taken neither for an unreadable answer nor for a network error."""
    with pytest.raises(type(error)) as caught, explained(URL):
        raise error
    assert caught.value is error


def test_unreadable_answer_is_the_sources_error() -> None:
    """Where our own code reads it, and at any place where the driver fails in it."""
    for text in (b"many", b""):
        with pytest.raises(UnreadableAnswer), explained(URL):
            int(text)
    with pytest.raises(UnreadableAnswer), explained(URL):
        pymysql.protocol.MysqlPacket(b"", "utf8").read_uint8()
    with pytest.raises(UnreadableAnswer), explained(URL):
        pymysql.protocol.FieldDescriptorPacket(None, "utf8")  # a TypeError of the driver's


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with one table of 16 rows."""
    with OpenState(tmp_path) as target:
        for key in range(16):
            target.apply(Batch(TABLE.id, bytes((Op.UPSERT,)), Packed.of([key_bytes(key)]), Packed.of([row_bytes(key, "v")])))
        target.commit_now(Checkpoint((UUID,), Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000001", 9), (TableProgress(TABLE),), 1.0))
    return tmp_path


def test_checkpoint_reads_back_as_committed(state: Path) -> None:
    """Position, progress and rows, for a writer and for a reader."""
    with OpenState(state) as target:
        checkpoint = target.found
        assert checkpoint
        assert checkpoint.position == Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000001", 9)
        assert checkpoint.tables == (TableProgress(TABLE),)
        assert dict(target.rows(TABLE.id)) == {key_bytes(key): row_bytes(key, "v") for key in range(16)}
        seen, maps = read_state(state, rows_of=[TABLE.id])
    assert seen == checkpoint
    assert dict(maps[TABLE.id].items()) == {key_bytes(key): row_bytes(key, "v") for key in range(16)}


@pytest.mark.parametrize("on_demand", [False, True])
@pytest.mark.parametrize("which", ["*-0.map", "*-0-changes.map"])
def test_damaged_image_is_damaged_state(state: Path, which: str, *, on_demand: bool) -> None:
    """Cut, with one bit turned, or missing, also where its rows are not asked for; no part of it is used."""
    with OpenState(state) as target:
        target.apply(Batch(TABLE.id, bytes((Op.UPSERT,)), Packed.of([key_bytes(7)]), Packed.of([row_bytes(7, "new")])))
        target.commit_now(Checkpoint((UUID,), Position(GtidSet.parse(f"{UUID}:1-6")), (TableProgress(TABLE),), 2.0))
    (image,) = state.glob(which)
    whole = image.read_bytes()
    for broken in (whole[:-1], bytes((*whole[:-9], whole[-9] ^ 1, *whole[-8:]))):
        image.write_bytes(broken)
        with pytest.raises(DamagedState, match=r"cannot be used.*--strategy full"):
            OpenState(state, on_demand=on_demand)
    image.unlink()
    with pytest.raises(DamagedState, match=r"is missing.*--strategy full"):
        OpenState(state, on_demand=on_demand)
    image.write_bytes(whole)
    OpenState(state, on_demand=on_demand).close()


def test_hint_of_an_unreachable_source_mentions_an_existing_checkpoint(state: Path, tmp_path: Path) -> None:
    """The same command continues from it; without a checkpoint the hint does not promise that."""
    away = SourceUrl("127.0.0.1", 1, "cdc", "hunter2")
    for folder, kept in ((state, True), (tmp_path / "none", False)):
        with pytest.raises(Temporary) as caught:
            api.migrate(Config(away, folder, (TABLE.id,), until_caught_up=True))
        assert ("The last checkpoint is kept: the same command goes on from it." in caught.value.hint) is kept
        assert "Check host and port" in caught.value.hint


def test_damaged_checkpoint_is_damaged_state(state: Path) -> None:
    """Taken for a missing one, it would start a full copy by itself."""
    (state / "checkpoint.sqlite").write_bytes(b"not a database, but long enough to be read as a header of one" * 9)
    with pytest.raises(DamagedState, match="cannot be read"):
        read_state(state)


def test_target_without_a_checkpoint_has_its_own_error(tmp_path: Path) -> None:
    """A folder that does not exist, one with other files, and one without a first commit."""
    (tmp_path / "other").mkdir()
    OpenState(tmp_path / "begun").close()
    for name in ("none", "other", "begun"):
        with pytest.raises(NothingHeld):
            read_state(tmp_path / name)


def test_second_writer_learns_who_the_first_is(state: Path) -> None:
    """One folder, one process."""
    with OpenState(state), pytest.raises(ConfigError, match=r"in use by the process \d+"):
        OpenState(state)


@pytest.mark.parametrize("as_json", [False, True])
def test_differences_exit_5_with_the_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """DifferencesFound comes after the result was printed."""
    shown = (Difference(key_bytes(7), DifferenceKind.CHANGED, ("v",)), Difference(key_bytes(8), DifferenceKind.MISSING))
    found = Differences(TABLE, 9, 1, 0, 2, shown)
    monkeypatch.setattr(api, "verify", lambda *_, **__: [found])
    monkeypatch.setattr(sys, "argv", ["cdc", "verify", "mysql://u@h/", "mapstore:x", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 5
    out, err = capsys.readouterr()
    assert "differ" in err
    if as_json:
        keys = [{"key": {"id": 7}, "kind": "changed", "columns": ["v"]}, {"key": {"id": 8}, "kind": "missing", "columns": []}]
        figures = {"identical": False, "rows": 9, "missing": 1, "extra": 0, "changed": 2, "keys": keys, "table": "shop.a"}
        assert json.loads(out) == {"identical": False, "tables": [figures]}
    else:
        assert out == f"{found}\n  changed  7: v\n  missing  8\n"
