"""Write the head of a request. Pure.

The target and the header values are sent as the bytes that they are. A request that would be read differently from
what it says is refused: an attacker could hide a second request in it.
"""

from collections.abc import Iterable
from typing import Final

import httpx

_ALPHANUMERIC: Final = bytes([*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)])
_TOKEN: Final = _ALPHANUMERIC + b"!#$%&'*+-.^_`|~"
"""Characters of methods and header names (RFC 9110, section 5.6.2)."""
_TARGET: Final = bytes(set(range(0x21, 0x7F)) - {ord("#")})
_CONTROLS: Final = bytes(set(range(0x20)) - {ord("\t")}) + b"\x7f"

_FRAMING: Final = {b"host", b"content-length", b"transfer-encoding"}
_METHODS_WITHOUT_BODY: Final = {"GET", "HEAD", "OPTIONS", "TRACE"}
"""Methods whose requests do not announce an empty body."""


def request_head(
    method: str, target: bytes, host: bytes, headers: Iterable[tuple[bytes, bytes]], content_bytes: int
) -> bytes:
    """Return the head of a request: Host and Content-Length, then `headers` in order, except those of framing.

    Raises httpx.LocalProtocolError for what cannot be written.
    """
    tokens = [method.encode("ascii", "replace")]
    parts = [tokens[0], b" ", target, b" HTTP/1.1\r\nHost: ", host]
    line_ends = 3
    if content_bytes or method not in _METHODS_WITHOUT_BODY:
        parts += (b"\r\nContent-Length: ", b"%d" % content_bytes)
        line_ends += 1
    for name, value in headers:
        if name.lower() not in _FRAMING:
            tokens.append(name)
            parts += (b"\r\n", name, b": ", value)
    parts.append(b"\r\n\r\n")
    head = b"".join(parts)
    if not (_are_tokens(tokens) and _is_target(target) and _controls_in(head) == 2 * (line_ends + len(tokens) - 1)):
        raise unsendable()
    return head


def unsendable() -> httpx.LocalProtocolError:
    """Return the error for a request that cannot be written. Its text quotes nothing of the request."""
    return httpx.LocalProtocolError("the request cannot be sent as it is")


def _are_tokens(names: list[bytes]) -> bool:
    return all(names) and not b"".join(names).translate(None, _TOKEN)


def _is_target(target: bytes) -> bool:
    return target.startswith(b"/") and not target.translate(None, _TARGET)


def _controls_in(head: bytes) -> int:
    return len(head) - len(head.translate(None, _CONTROLS))
