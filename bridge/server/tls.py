"""The server's TLS certificate: load it, and load it again on reload."""

import ssl

from bridge.config.problems import ConfigError, Problem
from bridge.settings.server import ServerSettings


def server_context(server: ServerSettings) -> ssl.SSLContext | None:
    """Return the TLS context, or None without a certificate. Raises ConfigError if the certificate is unusable."""
    if server.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, server)
    return context


def load_certificate(context: ssl.SSLContext, server: ServerSettings) -> None:
    """Load the certificate for new connections. Raises ConfigError."""
    assert server.tls_cert is not None
    try:
        # Without a password, OpenSSL would prompt on the terminal for an encrypted key, and wait.
        context.load_cert_chain(server.tls_cert, server.tls_key, password="")
    except OSError as error:
        message = f"{server.tls_cert} and {server.tls_key} cannot be used: {_reason(error)}"
        raise ConfigError([Problem("tls_cert, tls_key", None, message)]) from None


def _reason(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not match the certificate"
    return "expected a certificate chain and its unencrypted key, both in PEM"
