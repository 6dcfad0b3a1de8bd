"""Select and decode the headers of a provider's answer for the bridge's clients. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

_ORIGIN_HEADERS: Final = {
    "alt-svc",
    "clear-site-data",
    "nel",
    "report-to",
    "reporting-endpoints",
    "strict-transport-security",
}
"""Headers that describe the provider's host; clients would apply them to the bridge."""
_HANDSHAKE_PREFIX: Final = "sec-websocket-"


def is_forwardable(name: str) -> bool:
    """Return True if the bridge may pass on this header of a provider (its name in lower case)."""
    return name not in _ORIGIN_HEADERS and not name.startswith(("access-control-", "cf-aig-"))


def for_handshake(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of a provider's WebSocket handshake that the bridge adds to its own answer.

    Values with bytes that aiohttp could not decode are read as Latin-1, because aiohttp cannot send them otherwise.
    """
    return {
        name: _sendable(value)
        for name, value in headers
        if is_forwardable(name) and not name.startswith(_HANDSHAKE_PREFIX)
    }


def readable(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers whose characters are single bytes as text: UTF-8 if valid, else Latin-1."""
    if all(map(str.isascii, headers.values())):
        return headers
    return {name: _text(value) for name, value in headers.items()}


def _sendable(value: str) -> str:
    return value if value.isascii() else _decoded(value.encode("utf-8", "surrogateescape"))


def _text(value: str) -> str:
    try:
        return _decoded(value.encode("latin-1"))
    except UnicodeEncodeError:  # an imported tape may hold decoded text
        return value


def _decoded(written: bytes) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written.decode("latin-1")
