"""What the system says is wrong, in its plainest words."""

import os
import socket
import ssl
import sys
from typing import Final

if sys.platform == "linux":
    from fcntl import ioctl

    SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h

    def unsent_bytes(descriptor: int) -> int:
        """A connection whose other side is dead takes megabytes otherwise, for a quarter of an hour."""
        try:
            return int.from_bytes(ioctl(descriptor, SIOCOUTQNSD, bytes(4)), sys.byteorder)
        except OSError:
            return 0
else:

    def unsent_bytes(descriptor: int) -> int:
        """Not told here: what the kernel has taken counts as taken by the client."""
        return 0


_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""What OpenSSL, older and newer, makes of an answer that is none of TLS."""


def describe_os_error(error: OSError) -> str:
    """Without the call and the address that asyncio writes into an error's text: the number says it plainer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # whose numbers are OpenSSL's own
        hint = " (does the other side speak TLS on this port?)" if error.reason in _NO_TLS else ""
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}{hint}"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
