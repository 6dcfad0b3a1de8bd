"""Read socket state from the operating system, and describe its errors in plain words."""

import os
import socket
import ssl
import sys
from typing import Final

if sys.platform == "linux":
    from fcntl import ioctl

    SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h

    def unsent_bytes(descriptor: int) -> int:
        """Return the number of bytes that the kernel has not sent yet, 0 if it is unknown.

        The kernel accepts megabytes for a dead connection, and keeps them for about a quarter of an hour.
        """
        try:
            return int.from_bytes(ioctl(descriptor, SIOCOUTQNSD, bytes(4)), sys.byteorder)
        except OSError:
            return 0
else:

    def unsent_bytes(descriptor: int) -> int:
        """Return 0: this system does not report unsent bytes, so accepted bytes count as received by the client."""
        return 0


_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""Reasons that OpenSSL versions report when the peer does not speak TLS."""


def describe_os_error(error: OSError) -> str:
    """Return the reason of an OSError, without the system call and address that asyncio adds to the text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # the error numbers of OpenSSL are not those of the system
        hint = " (does the other side speak TLS on this port?)" if error.reason in _NO_TLS else ""
        return f"TLS: {(error.reason or 'failed').replace('_', ' ').lower()}{hint}"
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
