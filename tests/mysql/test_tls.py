"""TLS as the URL asks for it, on every connection: verification and refusals."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.config import SourceUrl, Tls, TlsMode
from cdc.errors import ConfigError
from cdc.mysql.connection import connect
from cdc.sandbox import Sandbox
from tests.fix_migration import Project

ANOTHER = """\
-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIUDw94gtNPMrSXMleUPwQ0BPaZgp4wCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRYW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTI1MTA1ODMyWhgP
MjEyNjExMDExMDU4MzJaMBwxGjAYBgNVBAMMEWFub3RoZXIgYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbH3o8uvdK7SyjU97Cq+uURtfCBDloTpE
H8G1+XvLF78AYUn6QlAaZkvdYrk2HohKNW9ChGT0YfLHQge0vFOUqKNTMFEwHQYD
VR0OBBYEFJ3AGKc+tFWT0VZ49TBwczeBHgAPMB8GA1UdIwQYMBaAFJ3AGKc+tFWT
0VZ49TBwczeBHgAPMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIg
UnKfSUSJ1/EBIMbD+09SaL32PWAzaTq2Ghx7Pcw3el0CIQDCppMJKBrldDkEKljx
0RX4w2kuaIm/qmu4G95PIKjcxw==
-----END CERTIFICATE-----
"""
"""Signed by itself, and nobody has its key."""


def encrypted(source: SourceUrl) -> bool:
    """Whether a connection uses TLS."""
    connection = connect(source)
    try:
        return connection.one("SHOW STATUS LIKE 'Ssl_cipher'")[1] != ""
    finally:
        connection.abandon()


@pytest.fixture
def certificate(mysql_server: Sandbox, tmp_path: Path) -> Path:
    """The certificate that the server has made for itself."""
    connection = connect(replace(SourceUrl.parse(mysql_server.url, {}), tls=Tls(TlsMode.REQUIRED)))
    found = connection._sock.getpeercert(binary_form=True)
    connection.abandon()
    path = tmp_path / "server.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(found))
    return path


def test_connections_are_encrypted_unless_the_url_says_otherwise(mysql_server: Sandbox, mariadb_server: Sandbox) -> None:
    """MariaDB 10.11 has no certificate of its own: its connections are plain, and required TLS is refused."""
    source = SourceUrl.parse(mysql_server.url, {})
    assert encrypted(source)
    assert encrypted(replace(source, tls=Tls(TlsMode.REQUIRED)))
    assert not encrypted(replace(source, tls=Tls(TlsMode.DISABLED)))
    assert not encrypted(SourceUrl.parse(mariadb_server.url, {}))
    with pytest.raises(ConfigError, match="does not speak TLS"):
        connect(replace(SourceUrl.parse(mariadb_server.url, {}), tls=Tls(TlsMode.REQUIRED)))


def test_server_certificate_is_verified_on_every_connection(project: Project, certificate: Path) -> None:
    """Chunks, stream and queries all use the URL's options."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    project.url += f"?ssl-ca={certificate}"
    assert project.migrate()["rows_copied"] == 2
    project.assert_identical()


def test_untrusted_certificate_is_refused(mysql_server: Sandbox, certificate: Path, tmp_path: Path) -> None:
    """Another authority, another name, an invalid file: exit code 2, and a sentence for each."""
    another = tmp_path / "another.pem"
    another.write_text(ANOTHER)
    with pytest.raises(ConfigError, match="is not what the URL asks for"):
        connect(replace(SourceUrl.parse(mysql_server.url, {}), tls=Tls(TlsMode.VERIFY_CA, str(another))))
    with pytest.raises(ConfigError, match="is not what the URL asks for"):
        connect(replace(SourceUrl.parse(mysql_server.url, {}), tls=Tls(TlsMode.VERIFY_IDENTITY, str(certificate))))
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        connect(replace(SourceUrl.parse(mysql_server.url, {}), tls=Tls(TlsMode.VERIFY_CA, str(tmp_path / "none.pem"))))
    another.write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be used"):
        connect(replace(SourceUrl.parse(mysql_server.url, {}), tls=Tls(TlsMode.VERIFY_CA, str(another))))
