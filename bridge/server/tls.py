"""The certificate that the bridge shows its clients."""

import ssl

from bridge.config.problems import ConfigError, Problem
from bridge.settings.server import ServerSettings


def server_context(server: ServerSettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises ConfigError when there is one that cannot be used."""
    if server.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, server)
    return context


def load_certificate(context: ssl.SSLContext, server: ServerSettings) -> None:
    """Shown to whoever connects from now on. Raises ConfigError."""
    assert server.tls_cert is not None
    try:
        # Without a password here, an encrypted key has OpenSSL ask the terminal for one, and wait.
        context.load_cert_chain(server.tls_cert, server.tls_key, password="")
    except OSError as error:
        message = f"{server.tls_cert} and {server.tls_key} cannot be used: {_why(error)}"
        raise ConfigError([Problem("tls_cert, tls_key", None, message)]) from None


def _why(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that certificate's"
    return "a certificate chain and its unencrypted key are wanted, both in PEM"
