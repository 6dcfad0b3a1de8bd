"""What the system says is wrong, in its plainest words."""

import os
import socket


def reason_of(error: OSError) -> str:
    """Without the call and the address that asyncio writes into an error's text: the number says it plainer."""
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
