"""Which headers of a provider's answer an HTTP client of the bridge gets to see. Pure."""

from collections.abc import Iterable
from typing import Final

_OF_THE_PROVIDERS_ORIGIN: Final = {
    "alt-svc",
    "clear-site-data",
    "nel",
    "report-to",
    "reporting-endpoints",
    "strict-transport-security",
}
"""They speak of the host that sends them, and would be taken for ours."""
_OF_THE_HANDSHAKE: Final = "sec-websocket-"


def may_pass(name: str) -> bool:
    """Whether a header of the provider (its name in lower case) may stand in an answer of the bridge."""
    return name not in _OF_THE_PROVIDERS_ORIGIN and not name.startswith(("access-control-", "cf-aig-"))


def for_handshake(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The public headers of a provider's answer to a WebSocket handshake, for the answer to the client's.

    Values with bytes that aiohttp could not decode are read as Latin-1: it could not send them otherwise.
    """
    return {
        name: _sendable(value) for name, value in headers if may_pass(name) and not name.startswith(_OF_THE_HANDSHAKE)
    }


def _sendable(value: str) -> str:
    if value.isascii():
        return value
    written = value.encode("utf-8", "surrogateescape")
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written.decode("latin-1")
