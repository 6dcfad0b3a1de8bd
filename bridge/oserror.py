"""What the system says is wrong, in its plainest words."""

import os
import socket
import ssl
from typing import Final

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""What OpenSSL, older and newer, makes of an answer that is none of TLS."""


def reason_of(error: OSError) -> str:
    """Without the call and the address that asyncio writes into an error's text: the number says it plainer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # whose numbers are OpenSSL's own
        hint = " (does the other side speak TLS on this port?)" if error.reason in _NO_TLS else ""
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}{hint}"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
