"""The request of the user, parsed once and checked for form, without I/O. `cdc.mysql.preflight` checks whether the source can serve it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from cdc.errors import ConfigError
from cdc.model import TableId
from cdc.model.selection import Selection

CHUNK_ROWS = 100_000
"""More than a chunk of small rows has by its bytes (chunk_size.py); this bound serves those who want smaller chunks."""
CHECKPOINT_SECONDS = 5.0
CHECKPOINT_BYTES = 1 << 30
"""About what a copy at full speed applies in CHECKPOINT_SECONDS; it takes effect where those are set higher."""
AWAY_SECONDS = 120.0
"""Longer than a server takes to restart; short enough for a script that waits."""
METRICS_ADDRESS = "127.0.0.1"
"""Loopback by default: metric labels contain table names."""
DEFAULT_TARGET = "mapstore:./cdc-state"
SOURCE_FORM = (
    "A source looks like mysql://user:password@host:3306/ (or leave the password to CDC_SOURCE_PASSWORD); "
    "servers of one replication are named side by side: host1:3306,host2:3306."
)
QUOTING = "In a password write /, ?, #, [ and ] as %2F, %3F, %23, %5B and %5D."


class TlsMode(StrEnum):
    """The mysql client's `--ssl-mode`."""

    DISABLED = "disabled"
    PREFERRED = "preferred"
    REQUIRED = "required"
    VERIFY_CA = "verify_ca"
    VERIFY_IDENTITY = "verify_identity"


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted, which certificates are used, and what is verified of the server's.

    Also the key that encrypts the password over a connection without TLS.
    """

    mode: TlsMode = TlsMode.PREFERRED
    ca: str = ""
    """A file of certificates, one of which must have signed the server's, or be it."""
    cert: str = ""
    key: str = ""
    public_key: str = ""
    """A file with the server's RSA key, for the password over a connection without TLS."""
    get_public_key: bool = False
    """Trust the key that comes over the network, without knowing who sent it."""

    @classmethod
    def parse(cls, query: str) -> Tls:
        """Read the options behind the `?` of a URL; a CA alone means that it is verified, as for the mysql client."""
        given = dict(parse_qsl(query, keep_blank_values=True))
        get_public_key = given.pop(_GET_PUBLIC_KEY, None) == ""
        values = [*given.values(), *([_GET_PUBLIC_KEY] if get_public_key else [])]
        if not set(given) <= set(_TLS_OPTIONS) or not all(values) or bool(query) != bool(values):
            raise ConfigError(
                "The source URL has something else than TLS options after the port.", hint=f"It takes {_TLS_FORM}. {SOURCE_FORM}"
            )
        mode = given.get("ssl-mode", "verify_ca" if "ssl-ca" in given else "preferred").lower().replace("-", "_")
        if mode not in set(TlsMode):
            raise ConfigError("The source URL's ssl-mode is unknown.", hint=f"It takes {_TLS_FORM}.")
        ca, cert, key, public_key = (given.get(name, "") for name in _TLS_OPTIONS[1:])
        tls = cls(TlsMode(mode), ca, cert, key, public_key, get_public_key)
        if tls.verifies != bool(tls.ca) or bool(tls.cert) != bool(tls.key) or (tls.cert and not tls.required):
            raise ConfigError(
                "The source URL's TLS options contradict each other.",
                hint="Only verify_ca and verify_identity take ssl-ca, and need it; ssl-cert and ssl-key go together, from `required` on.",
            )
        return tls

    @property
    def required(self) -> bool:
        """Whether a connection without encryption is refused."""
        return self.mode not in {TlsMode.DISABLED, TlsMode.PREFERRED}

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate is looked at."""
        return self.mode in {TlsMode.VERIFY_CA, TlsMode.VERIFY_IDENTITY}


_TLS_OPTIONS = ("ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "server-public-key")
_GET_PUBLIC_KEY = "get-server-public-key"
_TLS_FORM = (
    "ssl-mode=disabled|preferred|required|verify_ca|verify_identity, ssl-ca=FILE, ssl-cert=FILE, ssl-key=FILE, server-public-key=FILE, "
    "get-server-public-key"
)


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """The address of the source, and how to log in. repr() and `redacted` leave the password out."""

    host: str
    port: int
    user: str
    password: str = field(repr=False, default="")
    others: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of the servers that may take over, in the order of preference."""
    tls: Tls = Tls()

    @classmethod
    def of_replica(cls, url: str, environ: Mapping[str, str]) -> SourceUrl:
        """The same for a replica of the source, with a password of its own."""
        try:
            return cls.parse(url, {"CDC_SOURCE_PASSWORD": environ.get("CDC_REPLICA_PASSWORD", "")})
        except ConfigError as error:
            message = error.message.replace("The source URL", "The replica's URL")
            raise ConfigError(
                message, hint="A replica looks like mysql://user:password@host:3306/ (or leave the password to CDC_REPLICA_PASSWORD)."
            ) from None

    @classmethod
    def parse(cls, url: str, environ: Mapping[str, str]) -> SourceUrl:
        """Read `mysql://user:password@host:port,host:port/`; raises ConfigError without ever showing the password."""
        scheme, slashes, rest = url.partition("//")
        end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
        user, at, hosts = rest[:end].rpartition("@")
        first, *others = (cls._parse(f"{scheme}{slashes}{user}{at}{host}{rest[end:]}", environ) for host in hosts.split(","))
        addresses = [server.address for server in (first, *others)]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ConfigError(f"The source URL names {address} twice.", hint="Name each server once. " + SOURCE_FORM)
        return replace(first, others=tuple((server.host, server.port) for server in others))

    @classmethod
    def _parse(cls, url: str, environ: Mapping[str, str]) -> SourceUrl:
        """Read a URL with one host."""
        try:
            parts = urlsplit(url)
        except ValueError:  # its text may quote the URL, so it is not passed on; neither is that of .port
            raise ConfigError("The source URL cannot be read.", hint=f"{QUOTING} {SOURCE_FORM}") from None
        try:
            port = 3306 if parts.port is None else parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ConfigError("The source URL's port is not a number from 1 to 65535.", hint=f"{QUOTING} {SOURCE_FORM}")
        if parts.scheme != "mysql":
            raise ConfigError(
                f"The source URL starts with {parts.scheme + ':' if parts.scheme else 'no scheme'}, it needs mysql:.",
                hint=SOURCE_FORM,
            )
        if not parts.hostname or not parts.username:
            missing = "host" if not parts.hostname else "user"
            raise ConfigError(f"The source URL names no {missing}.", hint=SOURCE_FORM)
        if parts.path.strip("/") or parts.fragment:
            raise ConfigError("The source URL goes on after the port.", hint="Name tables with --tables DB.TABLE. " + SOURCE_FORM)
        password = unquote(parts.password) if parts.password is not None else environ.get("CDC_SOURCE_PASSWORD", "")
        return cls(parts.hostname, port, unquote(parts.username), password, tls=Tls.parse(parts.query))

    @property
    def each(self) -> tuple[SourceUrl, ...]:
        """One URL for each server."""
        return tuple(replace(self, host=host, port=port, others=()) for host, port in ((self.host, self.port), *self.others))

    @property
    def address(self) -> str:
        """`host:port`, of several servers separated by commas; an IPv6 address in brackets."""
        hosts = ((self.host, self.port), *self.others)
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)

    @property
    def redacted(self) -> str:
        """The URL without the password, for people to read."""
        return f"mysql://{self.user}@{self.address}/"


MAPSTORE = "mapstore"
"""The scheme of the embedded target, and of a plain path."""
TARGET_FORM = "A target looks like mapstore:./cdc-state; a plain path is a folder of the map store too."
_TARGET = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """Where the target is: a scheme, which `cdc.targets` knows targets by, and a place. `str` and repr() leave a password out."""

    scheme: str
    place: str = field(repr=False)
    """The text after the colon: for `mapstore` the path of a folder."""

    @classmethod
    def parse(cls, target: TargetUrl | Path | str) -> TargetUrl:
        """Read `SCHEME:PLACE` or a plain path; raises ConfigError for anything else. A Path is never read as a URL."""
        if isinstance(target, TargetUrl):
            return target
        _require("target", isinstance(target, (str, Path)), 'a URL or a path: "mapstore:state" or Path("state")')
        if isinstance(target, Path):
            return cls(MAPSTORE, str(target))
        match = _TARGET.fullmatch(target)
        scheme, place = match.groups() if match else (MAPSTORE, target)
        if not place:
            raise ConfigError(f"The target {target or 'that is given'} names no place.", hint=TARGET_FORM)
        return cls(scheme, str(_expanded(place)) if match and scheme == MAPSTORE else place)

    def __str__(self) -> str:
        """The URL without a password, for people to read."""
        start, slashes, rest = self.place.partition("//")
        login, at, host = rest.rpartition("@")
        return f"{self.scheme}:{start}{slashes}{login.partition(':')[0]}{at}{host}"


def _expanded(path: str) -> Path:
    """A path whose `~` stands for a home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user, _, _ = path.partition("/")
        raise ConfigError(
            f"The target mapstore:{path} names a home folder, {user}, that is not known.", hint="Write its path in full."
        ) from None


_NAME = r"(`(?:[^`]|``)+`|[^.`]+)"
_TABLE = re.compile(rf"{_NAME}\.{_NAME}")


def parse_table(name: str | TableId) -> TableId:
    """`DB.TABLE`, as `str(TableId)` writes it: a name that holds a dot or a backquote is in backquotes, its own backquotes doubled."""
    if isinstance(name, TableId):
        return name
    _require("A table's name", isinstance(name, str), '"DB.TABLE" or cdc.TableId("DB", "TABLE")')
    match = _TABLE.fullmatch(name)
    if not match:
        raise ConfigError(
            f"{name!r} is not a table's full name.",
            hint="Name tables as DB.TABLE, for example --tables shop.orders; a name that holds a dot or a backquote goes in backquotes, "
            "its own backquotes doubled: --tables 'shop.`a.b`'",
        )
    return TableId(*(part[1:-1].replace("``", "`") if part.startswith("`") else part for part in match.groups()))


def parse_shares(text: str) -> tuple[float, ...]:
    """Percentages of rows, `0.5%,1%,20%`, as shares: 0.005, 0.01, 0.2; an empty text gives none. Raises ConfigError."""
    shares = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            share = float(part.removesuffix("%")) / 100 if part.endswith("%") else math.nan
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise ConfigError(
                f"--churn {part} is not a percentage{_suggestion(part)}",
                hint="Write percentages up to 100%: --churn 0.5%,1%,20%",
            )
        shares.append(share)
    return tuple(shares)


def _suggestion(part: str) -> str:
    """The probable meaning of a number without a percent sign."""
    try:
        return f"; did you mean {part}%?" if 0 < float(part) <= 100 else "."  # noqa: PLR2004
    except ValueError:
        return "."


class Strategy(StrEnum):
    """How to bring the target up to date."""

    AUTO = "auto"
    FULL = "full"
    INCREMENTAL = "incremental"


def _is_number(value: object, kind: type | tuple[type, ...], least: float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and isinstance(value, (int, float)) and least <= value < math.inf


def _require(name: str, fits: bool, wanted: str) -> None:
    """Raise ConfigError unless the value fits. The message never shows the value: a URL may hold a password."""
    if not fits:
        raise ConfigError(f"{name} in the configuration has the wrong type or range.", hint=f"It takes {wanted}.")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a copy; None means no limit. The stream is never limited."""

    max_rows_per_second: int | None = None
    max_bytes_per_second: int | None = None
    max_threads_running: int | None = None
    """Compared with the source's status variable Threads_running."""
    max_replica_lag: float | None = None
    """Seconds that `replica` may lag."""
    replica: SourceUrl | None = None

    def __post_init__(self) -> None:
        for name in ("max_rows_per_second", "max_bytes_per_second", "max_threads_running"):
            _require(name, getattr(self, name) is None or _is_number(getattr(self, name), int, 1), "None, or a whole number from 1 on")
        lag = self.max_replica_lag
        _require("max_replica_lag", lag is None or _is_number(lag, (int, float), 1), "None, or a number of seconds from 1 on")
        _require("replica", self.replica is None or isinstance(self.replica, SourceUrl), "None, or cdc.SourceUrl.of_replica(...)")
        if (self.max_replica_lag is None) is not (self.replica is None):
            given, missing = ("replica", "max-replica-lag") if self.replica else ("max-replica-lag", "replica")
            raise ConfigError(
                f"{given} is set without {missing}.", hint="Set both: --replica mysql://user@host/ --max-replica-lag SECONDS."
            )

    def __str__(self) -> str:
        """In words, without a password."""
        words = [
            f"{self.max_rows_per_second:,} rows a second" if self.max_rows_per_second is not None else "",
            f"{self.max_bytes_per_second:,} bytes a second" if self.max_bytes_per_second is not None else "",
            f"while the source runs {self.max_threads_running:,} threads" if self.max_threads_running is not None else "",
            f"while {self.replica.redacted} is {self.max_replica_lag:g} s behind" if self.replica else "",
        ]
        return f"at most {', '.join(filter(None, words))}" if any(words) else "none"


@dataclass(frozen=True, slots=True)
class Config:
    """One migration. Times in seconds, sizes in rows or bytes."""

    source: SourceUrl
    target: TargetUrl | Path | str
    """Made a `TargetUrl`, which `target_url` gives."""
    tables: tuple[TableId, ...]
    """Names and patterns. Tables in the target's checkpoint continue, named or not."""
    strategy: Strategy = Strategy.AUTO
    until_caught_up: bool = False
    chunk_rows: int = CHUNK_ROWS
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    checkpoint_bytes: int = CHECKPOINT_BYTES
    heartbeat_seconds: float = 1.0
    limits: Limits = Limits()
    metrics_port: int | None = None
    metrics_address: str = METRICS_ADDRESS
    exclude: tuple[TableId, ...] = ()
    """Names and patterns to leave out of the patterns in `tables`."""
    drop_tables: tuple[TableId, ...] = ()
    """Names and patterns of tables in the target to stop following; their rows are dropped."""

    def __post_init__(self) -> None:
        """Raise ConfigError where a value is not of its type or range: type checkers see only those programs that they are run on."""
        _require("source", isinstance(self.source, SourceUrl), 'cdc.parse_source("mysql://user@host:3306/")')
        object.__setattr__(self, "target", TargetUrl.parse(self.target))  # whose repr() leaves a password out
        for name in ("tables", "exclude"):
            given = getattr(self, name)
            fits = isinstance(given, tuple) and all(isinstance(table, TableId) for table in given)
            _require(name, fits, 'a tuple of tables: (cdc.TableId("shop", "orders"),)')
        _require("strategy", isinstance(self.strategy, Strategy), "cdc.Strategy.AUTO, FULL or INCREMENTAL")
        _require("until_caught_up", isinstance(self.until_caught_up, bool), "True or False")
        _require("limits", isinstance(self.limits, Limits), "cdc.Limits(...)")
        for name in ("chunk_rows", "checkpoint_bytes"):
            _require(name, _is_number(getattr(self, name), int, 1), "a whole number from 1 on")
        _require("checkpoint_seconds", _is_number(self.checkpoint_seconds, (int, float), 0), "a number of seconds from 0 on")
        _require("heartbeat_seconds", _is_number(self.heartbeat_seconds, (int, float), 0.001), "a number of seconds above 0")
        port = self.metrics_port
        _require("metrics_port", port is None or (_is_number(port, int, 0) and port < 1 << 16), "None, or a port from 0 to 65535")
        _require("metrics_address", isinstance(self.metrics_address, str), 'an address as text: "127.0.0.1"')

    @property
    def target_url(self) -> TargetUrl:
        """Where the target is."""
        return TargetUrl.parse(self.target)

    @property
    def selection(self) -> Selection:
        """Which tables are meant."""
        return Selection(self.tables, self.exclude)

    @property
    def give_up_seconds(self) -> float | None:
        """Seconds that the source may be away before the run raises Temporary; None: a run that follows waits for ever."""
        return AWAY_SECONDS if self.until_caught_up else None
