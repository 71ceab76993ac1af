"""TLS as the source URL asks for it: what a connection to the source verifies."""

from __future__ import annotations

import ssl
from typing import Any

from cdc.config import Tls, TlsMode
from cdc.errors import ConfigError


def tls_arguments(tls: Tls) -> dict[str, Any]:
    """PyMySQL's arguments for TLS. Raises ConfigError when a file of certificates or a key cannot be used."""
    if not tls.required:
        return {"ssl_disabled": tls.mode is TlsMode.DISABLED}
    context = without_verification()
    try:
        if tls.verifies:
            context.verify_mode = ssl.CERT_REQUIRED
            context.check_hostname = tls.mode is TlsMode.VERIFY_IDENTITY
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate may be named
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # those that MySQL makes for itself are not that strict
            context.load_verify_locations(tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"A file that the source URL names for TLS cannot be used: {error.strerror or error}.",
            hint="ssl-ca, ssl-cert and ssl-key are paths of PEM files; a key has no passphrase.",
        ) from error
    return {"ssl": context}


def without_verification() -> ssl.SSLContext:
    """A context that encrypts and accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
