"""The differences between server flavors of a sandbox: their packages, programs and settings as a CDC source.

This module only holds facts: `cdc.sandbox` finds a server, `packages` unpacks it, `process` and `containers` run it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Option = str | int | bool | None
"""The value of a server option: text or number for `--name=value`, True for `--name`, False for `--skip-name`, None to
omit the option and keep the server's default."""

Options = Mapping[str, Option]

# The settings of a CDC source and of a throwaway. A killed server process keeps what it handed to the kernel,
# so not syncing is safe against `Sandbox.kill()`; tests about losing power pass sync-binlog=1. Native AIO is off:
# many servers side by side exhaust fs.aio-max-nr.
_COMMON: dict[str, Option] = {
    "server-id": 1,
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "binlog-row-metadata": "FULL",
    "sync-binlog": 0,
    "innodb-flush-log-at-trx-commit": 2,
    "innodb-buffer-pool-size": "256M",
    "innodb-use-native-aio": False,
    "skip-name-resolve": True,
    "report-host": "cdc-sandbox",  # the mark by which `cdc compare` knows that it may write here
}


@dataclass(frozen=True, slots=True)
class Flavor:
    """One kind of server. A new data folder is made with the arguments `initialise` and the SQL files `bootstrap`."""

    name: str
    title: str
    version: str
    suite: str  # Debian's
    packages: tuple[str, ...]
    programs: tuple[str, ...]  # names of the server's program, best first
    own: re.Pattern[str]  # matches the output of `--version`
    images: tuple[str, ...]  # ours, then the public one
    defaults: Mapping[str, Option]
    initialise: tuple[str, ...]
    bootstrap: tuple[str, ...]
    made_once: frozenset[str]  # options that only count while the data folder is made

    @property
    def variable(self) -> str:
        """The environment variable that holds the address of a given server."""
        return f"CDC_SANDBOX_{self.name.upper()}_URL"

    def accepts(self, printed: str) -> bool:
        """Whether the program with this `--version` output is a server of this flavor, new enough to be a source."""
        version = re.search(r"Ver\s+(\d+)\.(\d+)", printed)
        least = (8, 0) if self.name == "mysql" else (10, 5)  # binlog_row_metadata
        return bool(version and self.own.search(printed) and (int(version[1]), int(version[2])) >= least)

    def arguments(self, options: Options) -> list[str]:
        """Make the server's command line: the defaults of a CDC source, overridden by `options`."""
        merged = {**self.defaults, **normalised(options)}
        return [_argument(name, value) for name, value in merged.items() if value is not None]

    def first_statements(self, user: str, password: str) -> list[str]:
        """The statements that create a new server's administrator, without entries in its binlog."""
        return [
            "SET SESSION sql_log_bin=0",
            f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}'",
            f"GRANT ALL PRIVILEGES ON *.* TO '{user}'@'%' WITH GRANT OPTION",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}'",
        ]


def normalised(options: Options) -> dict[str, Option]:
    """Options under one spelling of their names: `log_bin` is `log-bin`."""
    return {name.replace("_", "-").lower().removeprefix("--"): value for name, value in options.items()}


def _argument(name: str, value: Option) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--skip-{name}"
    return f"--{name}={value}"


MYSQL = Flavor(
    name="mysql",
    title="MySQL 9.7",
    version="9.7",
    suite="sid",
    packages=("base-files", "dash", "coreutils", "mysql-server-core", "mysql-client-core"),
    programs=("mysqld",),
    own=re.compile(r"^(?!.*MariaDB).*mysqld", re.DOTALL),
    images=("cdc-mysql:9.7", "mysql:9.7"),
    defaults={
        **_COMMON,
        "gtid-mode": "ON",
        "enforce-gtid-consistency": "ON",
        "mysqlx": "OFF",
    },
    initialise=("--initialize-insecure",),
    bootstrap=(),
    made_once=frozenset({"lower-case-table-names", "innodb-page-size", "innodb-data-file-path", "innodb-undo-directory"}),
)

MARIADB = Flavor(
    name="mariadb",
    title="MariaDB 10.11",
    version="10.11",
    suite="bookworm",
    packages=("base-files", "dash", "coreutils", "mariadb-server-core", "mariadb-client-core"),
    programs=("mariadbd", "mysqld"),
    own=re.compile("MariaDB"),
    images=("cdc-mariadb:10.11", "mariadb:10.11"),
    defaults={
        **_COMMON,
        "gtid-strict-mode": "ON",
    },
    initialise=("--bootstrap", "--skip-log-bin"),
    bootstrap=(
        "mysql_system_tables.sql",
        "mysql_performance_tables.sql",
        "mysql_system_tables_data.sql",
        "maria_add_gis_sp_bootstrap.sql",
        "mysql_sys_schema.sql",
    ),
    made_once=frozenset({"lower-case-table-names", "innodb-page-size", "innodb-data-file-path", "innodb-undo-directory"}),
)

FLAVORS: Mapping[str, Flavor] = {flavor.name: flavor for flavor in (MYSQL, MARIADB)}
