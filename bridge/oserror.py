"""What the system says is wrong, in its plainest words."""

import os
import socket
import ssl


def reason_of(error: OSError) -> str:
    """Without the call and the address that asyncio writes into an error's text: the number says it plainer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # whose numbers are OpenSSL's own
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
