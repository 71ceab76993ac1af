"""The config file: read as meant, or refused with one sentence that quotes no value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cdc.config import Limits, SourceUrl
from cdc.errors import ConfigError
from cdc.model import TableId
from cdc.ops.config_file import ConfigFile, Settings
from cdc.ops.metrics_server import served

SECRET = "hunter2"
REPLICA = SourceUrl("r", 3306, "u", SECRET)
WHOLE = """
tables = ["shop.orders", "shop.`a.b`"]

[limits]
max-rows-per-second = 20_000
max-bytes-per-second = 5000000
max-threads-running = 25
max-replica-lag = 2.5
replica = "mysql://u:hunter2@r/"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cdc.toml"


def read(path: Path | None, *tables: TableId, environ: dict[str, str] | None = None, **limits: Any) -> Settings:
    return ConfigFile(path, limits, tables, environ or {}).read()


def test_file_holds_tables_and_limits(path: Path) -> None:
    """By the names of the options."""
    path.write_text(WHOLE)
    assert read(path) == Settings(Limits(20_000, 5_000_000, 25, 2.5, REPLICA), (TableId("shop", "orders"), TableId("shop", "a.b")))


def test_empty_file_sets_nothing(path: Path) -> None:
    """Like a missing file: the command line decides."""
    path.write_text("")
    assert read(path) == read(None) == Settings(Limits(), ())


def test_command_line_overrides_the_file(path: Path) -> None:
    """Tables are the union of both."""
    path.write_text(WHOLE)
    settings = read(path, TableId("shop", "mine"), TableId("shop", "orders"), max_rows_per_second=7, max_threads_running=None)
    assert settings.limits == Limits(7, 5_000_000, 25, 2.5, REPLICA)
    assert settings.tables == (TableId("shop", "mine"), TableId("shop", "orders"), TableId("shop", "a.b"))


def test_replica_password_may_come_from_the_environment(path: Path) -> None:
    """It has its own variable, since its server may have another account."""
    path.write_text('[limits]\nreplica = "mysql://u@r"\nmax-replica-lag = 1')
    settings = read(path, environ={"CDC_REPLICA_PASSWORD": "its own", "CDC_SOURCE_PASSWORD": "another"})
    assert settings.limits.replica == SourceUrl("r", 3306, "u", "its own")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tables = [", 'it is not valid TOML at its end. It looks like this:\n  tables = ["shop.orders"'),
        ("[limits]\nreplica = mysql://u:hunter2@r/", "line 2, column"),
        ("table = ['shop.orders']", "unknown setting `table`; known are exclude, limits, tables."),
        ("[limits]\nmax-rows = 5", "unknown setting `limits.max-rows`; known are limits.max-bytes-per-second"),
        ("tables = 'shop.orders'", "`tables` is not a list of names"),
        ("tables = ['shop.orders', 7]", "`tables` is not a list of names"),
        ("tables = ['orders']", "'orders' is not a table's full name"),
        ("limits = 5", "`limits` is not a table"),
        ("[limits]\nmax-rows-per-second = '5'", "`max-rows-per-second` is not a whole number of at least 1"),
        ("[limits]\nmax-rows-per-second = 0", "`max-rows-per-second` is not a whole number of at least 1"),
        ("[limits]\nmax-rows-per-second = 1.5", "`max-rows-per-second` is not a whole number of at least 1"),
        ("[limits]\nmax-threads-running = true", "`max-threads-running` is not a whole number of at least 1"),
        ("[limits]\nmax-replica-lag = nan\nreplica = 'mysql://u:hunter2@r/'", "`max-replica-lag` is not a number of seconds of at least 1"),
        ("[limits]\nmax-replica-lag = inf\nreplica = 'mysql://u:hunter2@r/'", "`max-replica-lag` is not a number of seconds of at least 1"),
        ("[limits]\nmax-replica-lag = 5", "max-replica-lag is set without replica"),
        ("[limits]\nreplica = 'mysql://u:hunter2@r/'", "replica is set without max-replica-lag"),
        ("[limits]\nmax-replica-lag = 5\nreplica = 'u:hunter2@r'", "The replica's URL starts with u:, it needs mysql:"),
        ("[limits]\nmax-replica-lag = 5\nreplica = ['mysql://u:hunter2@r']", "`replica` is not a string"),
    ],
)
def test_faulty_file_is_refused_with_one_sentence_and_no_password(path: Path, text: str, words: str) -> None:
    """It names the file and the place, and says how to correct it."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert SECRET not in str(caught.value)


def test_unreadable_file_is_refused(path: Path) -> None:
    """A missing one, and one that is not text."""
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(path)


def test_limits_are_worded_without_a_password() -> None:
    """For the line that reports the present limits."""
    told = str(Limits(20_000, 5_000_000, 25, 2.5, REPLICA))
    assert told == (
        "at most 20,000 rows a second, 5,000,000 bytes a second, while the source runs 25 threads, while mysql://u@r:3306/ is 2.5 s behind"
    )
    assert str(Limits()) == "none"
    assert SECRET not in repr(Limits(max_replica_lag=1, replica=REPLICA))


@pytest.mark.parametrize("text", [f"limits = {'9' * 5000}", f"tables = {'[' * 5000}"])
def test_excessive_file_is_refused(tmp_path: Path, text: str) -> None:
    """Numbers of thousands of digits and deeply nested lists are the file's error, not an internal one."""
    (tmp_path / "cdc.toml").write_text(text)
    with pytest.raises(ConfigError, match="In the config file"):
        ConfigFile(tmp_path / "cdc.toml", {}, (), {}, ()).read()


@pytest.mark.parametrize("address", ["x" * 70, "a..b", "\u2028", "300.1.1.1", "/", "nowhere.invalid"])
def test_impossible_address_is_refused(address: str) -> None:
    """Names that cannot be looked up too."""
    with pytest.raises(ConfigError, match="Metrics cannot be served at"), served(CollectorRegistry(), address, 0):
        pass
