"""Errors of the driver and the server as errors of ours: the type says what the caller can do, the text never holds a password."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from pymysql.constants import CR, ER

from cdc.config import SourceUrl
from cdc.errors import CdcError, ConfigError, PreflightFailed, SchemaChanged, Temporary


@contextmanager
def explained(url: SourceUrl) -> Iterator[None]:
    """Turn PyMySQL's errors into ours: the type says what the caller can do, the text never holds a password."""
    try:
        yield
    except CdcError:
        raise
    except pymysql.MySQLError as error:
        raise explain(error, url) from error
    except OSError as error:
        raise Temporary(f"The connection to {url.redacted} broke: {error}.", hint="Run the same command again to resume.") from error


def explain(error: pymysql.MySQLError, url: SourceUrl) -> CdcError:
    """Our error for one of PyMySQL's."""
    code = error.args[0] if error.args else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    if code in (ER.ACCESS_DENIED_ERROR, CR.CR_AUTH_PLUGIN_CANNOT_LOAD):
        return _not_let_in(code, url, text)
    if code in _DENIED:
        return PreflightFailed(f"The user {url.user!r} lacks a grant on {url.redacted}: {text}.", hint="`cdc check` lists what is missing.")
    if code in (ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE):
        return SchemaChanged(
            f"A table changed while it was copied: {text}.",
            hint="The checkpoint stays before that; copy again with --strategy full to go past it.",
        )
    if code in {CR.CR_CONN_HOST_ERROR, CR.CR_SSL_CONNECTION_ERROR}:
        return _unconnected(error, url, text)
    if code in _GONE or error.args[:1] == (_CLOSED,):
        why = text or "it is closed"
        return Temporary(f"The connection to {url.redacted} was lost: {why}.", hint="Run the same command again to resume.")
    return CdcError(f"{url.redacted} answered with error {code}: {text}.")


def _not_let_in(code: int, url: SourceUrl, text: str) -> ConfigError:
    if code == ER.ACCESS_DENIED_ERROR:
        return ConfigError(
            f"{url.redacted} refuses the user {url.user!r} with this password.",
            hint="Check the user and password in the URL, or CDC_SOURCE_PASSWORD.",
        )
    return ConfigError(
        f"{url.redacted} asks for a login that is not supported: {text}.",
        hint="Use a user that is identified with caching_sha2_password or mysql_native_password.",
    )


def _unconnected(error: pymysql.MySQLError, url: SourceUrl, text: str) -> CdcError:
    if error.args[0] == CR.CR_SSL_CONNECTION_ERROR:
        return ConfigError(f"{url.redacted} does not speak TLS, and the URL asks for it.", hint="Set up TLS there, or leave out ssl-mode.")
    if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
        return ConfigError(
            f"The certificate of {url.redacted} is not what the URL asks for: {text}.",
            hint="Check the host, ssl-mode and ssl-ca in the URL.",
        )
    return Temporary(f"No MySQL server answers at {url.redacted}: {text}.", hint="Check host and port, and that the server is running.")


_DENIED = {
    ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR,
}  # fmt: skip
_SERVER_SHUTDOWN, _QUERY_KILLED, _CONNECTION_KILLED, _INACTIVITY = 1053, 1317, 1927, 4031
_GONE = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, _SERVER_SHUTDOWN, _QUERY_KILLED, _CONNECTION_KILLED, _INACTIVITY}
_CLOSED = 0
"""PyMySQL's own number for a statement on a connection that it has given up."""
