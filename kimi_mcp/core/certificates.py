"""The certificates that are trusted: the system's, or those of SSL_CERT_FILE or SSL_CERT_DIR. Reads them from disk."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from kimi_mcp.core.errors import NotConfigured


def trusted_certificates() -> ssl.SSLContext:
    """The context of every connection by https; ``NotConfigured`` where they can't be read. Slow the first time."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _read(file: str | None, folder: str | None) -> ssl.SSLContext:
    import httpx2

    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # an ``ssl.SSLError`` is one too
        if not file and not folder:
            raise NotConfigured(
                "The trusted certificates of this machine can't be read.",
                fix="Set SSL_CERT_FILE to a file of the certificates to be trusted, in PEM form.",
            ) from None
        name = "SSL_CERT_FILE" if file else "SSL_CERT_DIR"
        found = "holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else "can't be read"
        raise NotConfigured(
            f"What {name} names {found}: no connection by https is possible.",
            fix=f"Set {name} to the certificates to be trusted, in PEM form, or unset it to trust the system's.",
        ) from None
