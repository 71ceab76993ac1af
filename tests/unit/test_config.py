"""Parsing of what the user typed: read as meant, or refused with a sentence that never shows a password."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config import DEFAULT_TARGET, Config, Limits, SourceUrl, TargetUrl, Tls, TlsMode, parse_table
from cdc.errors import ConfigError
from cdc.model import TableId
from cdc.targets import open_reader, open_target

SECRET = "hunter2"
ENVIRONMENT = {"CDC_SOURCE_PASSWORD": "from-environment"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://cdc:hunter2@db.example:3307/", SourceUrl("db.example", 3307, "cdc", SECRET)),
        ("mysql://cdc:hunter2@db.example", SourceUrl("db.example", 3306, "cdc", SECRET)),
        ("mysql://cdc:hunter2@db.example:/", SourceUrl("db.example", 3306, "cdc", SECRET)),
        ("MYSQL://cdc:hunter2@127.0.0.1:65535/", SourceUrl("127.0.0.1", 65535, "cdc", SECRET)),
        ("mysql://cdc:hunter2@[::1]:3306/", SourceUrl("::1", 3306, "cdc", SECRET)),
        ("mysql://c%40c:p%2F%3A%40%23%3F%25@h/", SourceUrl("h", 3306, "c@c", "p/:@#?%")),
        ("mysql://cdc:at@sign@h/", SourceUrl("h", 3306, "cdc", "at@sign")),
        ("mysql://cdc@h/", SourceUrl("h", 3306, "cdc", "from-environment")),
        ("mysql://cdc:@h/", SourceUrl("h", 3306, "cdc", "")),
        ("mysql://cdc:a,b@h,g:3307/", SourceUrl("h", 3306, "cdc", "a,b", (("g", 3307),))),
        ("mysql://cdc:x@[::1]:3307,h,[fe80::1]/", SourceUrl("::1", 3307, "cdc", "x", (("h", 3306), ("fe80::1", 3306)))),
    ],
)
def test_source_url_is_parsed(url: str, expected: SourceUrl) -> None:
    """Percent signs are decoded, the port has its default, and a URL without password takes the environment's."""
    assert SourceUrl.parse(url, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Tls()),
        ("?ssl-mode=DISABLED", Tls(TlsMode.DISABLED)),
        ("?ssl-mode=required", Tls(TlsMode.REQUIRED)),
        ("?ssl-ca=/etc/a%20b.pem", Tls(TlsMode.VERIFY_CA, "/etc/a b.pem")),
        ("?server-public-key=a.pem", Tls(public_key="a.pem")),
        ("?get-server-public-key", Tls(get_public_key=True)),
        ("?get-server-public-key=&ssl-mode=disabled", Tls(TlsMode.DISABLED, get_public_key=True)),
        ("?ssl-mode=VERIFY_IDENTITY&ssl-ca=ca&ssl-cert=c&ssl-key=k", Tls(TlsMode.VERIFY_IDENTITY, "ca", "c", "k")),
    ],
)
def test_tls_options_are_those_of_the_mysql_client(query: str, expected: Tls) -> None:
    """Alike for each of several servers."""
    for each in SourceUrl.parse(f"mysql://cdc:x@h,g/{query}", {}).each:
        assert each.tls == expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?ssl=1", "else than TLS options"),
        ("?ssl-ca=", "else than TLS options"),
        ("?server-public-key=", "else than TLS options"),
        ("?get-server-public-key=no", "else than TLS options"),
        ("?nonsense", "else than TLS options"),
        ("?ssl-mode=sometimes", "ssl-mode is unknown"),
        ("?ssl-mode=verify_ca", "contradict each other"),
        ("?ssl-mode=required&ssl-ca=ca", "contradict each other"),
        ("?ssl-mode=required&ssl-cert=c", "contradict each other"),
        ("?ssl-cert=c&ssl-key=k", "contradict each other"),
    ],
)
def test_meaningless_tls_options_are_refused(query: str, words: str) -> None:
    """Rather than connecting with less protection than was meant."""
    with pytest.raises(ConfigError, match=words):
        SourceUrl.parse(f"mysql://cdc:x@h/{query}", {})


def test_missing_password_is_empty() -> None:
    """Accounts without a password exist; the server decides whether it is right."""
    assert SourceUrl.parse("mysql://cdc@h/", {}).password == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "starts with no scheme"),
        ("db.example", "starts with no scheme"),
        ("cdc:hunter2@h", "starts with cdc:, it needs mysql:"),
        ("postgresql://cdc:hunter2@h/", "starts with postgresql:, it needs mysql:"),
        ("mysql:cdc:hunter2@h", "names no host"),
        ("mysql://cdc:hunter2@/", "names no host"),
        ("mysql://h/", "names no user"),
        ("mysql://:hunter2@h/", "names no user"),
        ("mysql://cdc:hunter2@h/shop", "goes on after the port"),
        ("mysql://cdc:hunter2@h/?ssl=1", "after the port"),
        ("mysql://cdc:hunter2@h/#x", "goes on after the port"),
        ("mysql://cdc:hunter2@h:sql/", "port is not a number"),
        ("mysql://cdc:hunter2@h:65536/", "port is not a number"),
        ("mysql://cdc:hunter2@h:-1/", "port is not a number"),
        ("mysql://cdc:hunter2@h,/", "names no host"),
        ("mysql://cdc:hunter2@,h/", "names no host"),
        ("mysql://cdc:hunter2@h,g:sql/", "port is not a number"),
        ("mysql://cdc:hunter2@h,g/shop", "goes on after the port"),
        ("mysql://cdc:hunter2@h:3306,g,h/", "names h:3306 twice"),
        ("postgresql://cdc:hunter2@h,g/", "starts with postgresql:"),
    ],
)
def test_wrong_source_url_names_the_wrong_part(url: str, words: str) -> None:
    """The hint shows a right one, and neither sentence shows the password."""
    with pytest.raises(ConfigError, match=words) as error:
        SourceUrl.parse(url, {})
    assert "mysql://user:password@host:3306/" in error.value.hint
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "url",
    [
        # a password that should have been written with percent signs makes something else of the URL
        f"mysql://cdc:{SECRET}/@h/",
        f"mysql://cdc:{SECRET}#@h/",
        f"mysql://cdc:{SECRET}?@h/",
        f"mysql://cdc:{SECRET}[@h/",
        f"mysql://cdc:{SECRET}℀@h/",
        "mysql://cdc:hunter2@h:0/",
        "mysql://cdc:hunter2@[::1/",
    ],
)
def test_unsplittable_source_url_is_refused_without_its_password(url: str) -> None:
    """Python's own errors quote the URL: neither the message nor the traceback may pass that on."""
    with pytest.raises(ConfigError) as error:
        SourceUrl.parse(url, {})
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_password_is_missing_from_every_text_of_a_config() -> None:
    """repr(), str() and the redacted URL leave it out, also where the URL is part of something larger."""
    url = SourceUrl.parse(f"mysql://cdc:{SECRET}@h:3307/", {})
    config = Config(url, Path("state"), (TableId("shop", "orders"),))
    for text in (repr(url), str(url), f"{url!r}", url.redacted, repr(config), str(config)):
        assert SECRET not in text
    assert url.redacted == "mysql://cdc@h:3307/"


def test_several_hosts_give_one_url_each() -> None:
    """In their order, with the same user and password; shown side by side, without the password."""
    url = SourceUrl.parse(f"mysql://cdc:{SECRET}@h,[::1]:3307/", {})
    assert url.each == (SourceUrl("h", 3306, "cdc", SECRET), SourceUrl("::1", 3307, "cdc", SECRET))
    assert url.redacted == "mysql://cdc@h:3306,[::1]:3307/"
    assert url.each[1].address == "[::1]:3307"
    assert SECRET not in repr(url)


def test_ipv6_address_keeps_its_brackets_when_shown() -> None:
    """The redacted URL can be parsed again."""
    url = SourceUrl.parse("mysql://cdc@[fe80::1]:3307/", {})
    assert url.redacted == "mysql://cdc@[fe80::1]:3307/"
    assert SourceUrl.parse(url.redacted, {}) == url


@given(st.text(st.characters(codec="ascii", exclude_characters="\t\r\n"), max_size=12))
def test_password_survives_percent_encoding(password: str) -> None:
    """For every character."""
    quoted = "".join(f"%{byte:02x}" for byte in password.encode())
    assert SourceUrl.parse(f"mysql://cdc:{quoted}@h/", ENVIRONMENT).password == password


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("mapstore:./cdc-state", Path("cdc-state")),
        ("mapstore:/var/lib/cdc", Path("/var/lib/cdc")),
        ("mapstore:~/cdc", Path.home() / "cdc"),
        ("mapstore:with:colon", Path("with:colon")),
        (DEFAULT_TARGET, Path("cdc-state")),
        ("cdc-state", Path("cdc-state")),
        ("/var/lib/cdc:1", Path("/var/lib/cdc:1")),
    ],
)
def test_mapstore_url_is_a_folder(url: str, path: Path) -> None:
    """The path follows the scheme, relative ones and the home folder included; a plain path is one too."""
    assert TargetUrl.parse(url) == TargetUrl("mapstore", str(path)) == TargetUrl.parse(TargetUrl.parse(path))
    assert Config(URL, url, (TableId("a", "b"),)).target_url == Config(URL, path, (TableId("a", "b"),)).target_url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "names no place"),
        ("redis://h/0", "starts with redis:"),
        (f"sqlserver://cdc:{SECRET}@h/db", "starts with sqlserver:, and the known targets are .*mapstore:"),
        ("mapstore:", "names no place"),
    ],
)
def test_unknown_target_is_refused_without_its_password(url: str, words: str) -> None:
    """The error names the known ones, for writers and for readers."""
    for opened in (open_target, open_reader):
        with pytest.raises(ConfigError, match=words) as error:
            opened(TargetUrl.parse(url))
        assert "mapstore:./cdc-state" in error.value.hint
        assert SECRET not in str(error.value)


def test_target_is_shown_without_its_password() -> None:
    """Also within a configuration, for every password."""
    url = TargetUrl.parse(f"sqlserver://cdc:{SECRET}/@h:1/db")
    assert str(url) == "sqlserver://cdc@h:1/db"
    for target in (url, f"sqlserver://cdc:{SECRET}@h/db"):
        assert SECRET not in repr(Config(URL, target, (TableId("a", "b"),)))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("shop.orders", TableId("shop", "orders")),
        ("`shop.eu`.orders", TableId("shop.eu", "orders")),
        ("shop.`orders.2024`", TableId("shop", "orders.2024")),
        ("`a`.`b`", TableId("a", "b")),
        ("my shop.größe", TableId("my shop", "größe")),
    ],
)
def test_table_name_has_schema_and_table(name: str, table: TableId) -> None:
    """A name with a dot goes in backquotes; all other characters stand for themselves."""
    assert parse_table(name) == table


NAMES = st.text(st.sampled_from("`.a*'\" \n\u00e9\u6f22"), min_size=1, max_size=6) | st.text(min_size=1, max_size=8)


@given(NAMES, NAMES)
def test_printed_table_name_parses_back(schema: str, table: str) -> None:
    """With any characters; plain names are printed unquoted."""
    name = TableId(schema, table)
    assert parse_table(str(name)) == name
    if not {".", "`"} & set(schema + table):
        assert str(name) == f"{schema}.{table}"


@pytest.mark.parametrize("name", ["", "orders", "shop.", ".orders", "a.b.c", "shop.`orders", "``.orders", "a.b`c", "shop.`a`b`"])
def test_incomplete_table_name_is_refused(name: str) -> None:
    """The message quotes it, the hint shows the form."""
    with pytest.raises(ConfigError, match="is not a table's full name") as error:
        parse_table(name)
    assert repr(name) in error.value.message
    assert "DB.TABLE" in error.value.hint
    assert "backquotes" in error.value.hint


URL = SourceUrl("h", 3306, "u", "hunter2")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("source", ["mysql://u:hunter2@h/", None]),
        ("target", [5, None]),
        ("tables", [[TableId("a", "b")], ("a.b",), TableId("a", "b"), "a.b", None]),
        ("exclude", [["a.b"], "a.b"]),
        ("strategy", ["full", None, 1]),
        ("until_caught_up", ["yes", 1, None]),
        ("chunk_rows", [0, -1, 1.5, True, "9", None]),
        ("checkpoint_bytes", [0, True, 1e9]),
        ("checkpoint_seconds", [-1, float("nan"), float("inf"), "5", None, True]),
        ("heartbeat_seconds", [0, -1.0, "1"]),
        ("limits", [None, {"max_rows_per_second": 5}]),
        ("metrics_port", [-1, 65536, "9100", True]),
        ("metrics_address", [None, 127]),
    ],
)
def test_config_checks_types_and_ranges(name: str, values: list[object]) -> None:
    """The sentence names the field and its allowed values, and leaves the given value out; programs are not all type-checked."""
    good: dict[str, object] = {"source": URL, "target": Path("state"), "tables": (TableId("a", "b"),)}
    assert Config(**good)  # type: ignore[arg-type]
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{name} in the configuration.* It takes ") as error:
            Config(**good | {name: value})  # type: ignore[arg-type]
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["max_rows_per_second", "max_bytes_per_second", "max_threads_running", "max_replica_lag", "replica"])
def test_limits_check_types_and_ranges(name: str) -> None:
    """As those of the config file do."""
    for value in (0, "5", True, [], float("nan")):
        with pytest.raises(ConfigError, match=rf"^{name} in the configuration"):
            Limits(**{name: value})  # type: ignore[arg-type]
