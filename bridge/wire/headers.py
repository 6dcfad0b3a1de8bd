"""Which headers of a request go to the provider (PROTOCOL.md, B "The whole HTTP exchange")."""

import re
from collections.abc import Mapping

from bridge.errors import BadField, TooLarge

SETTING_PREFIX = "cf-aig-"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_BAD_IN_VALUE = re.compile(r"[\r\n\0]")
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_OURS = {"host", "content-length", "expect", "accept-encoding", "cf-cache-ttl", "cf-skip-cache"}
_NOT_FORWARDED = _HOP_BY_HOP | _OURS
_NOT_FORWARDED_PREFIXES = (SETTING_PREFIX, "proxy-", "sec-websocket-")


def checked(headers: Mapping[str, str | int | float], where: str) -> dict[str, str]:
    """Names in lower case, values as text. Raises BadField that names the header which cannot be sent."""
    out: dict[str, str] = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise BadField(
                f"{where}: {name[:64]!r} is no header name; RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~"
            )
        if isinstance(value, bool):
            raise BadField(f"{where}.{name}: expected a string or a number, got a boolean")
        text = str(value)
        if _BAD_IN_VALUE.search(text):
            raise BadField(f"{where}.{name}: a header's value may not hold CR, LF or NUL")
        out[name.lower()] = text
    return out


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """The part of `headers` (lower-case names) that the provider gets to see."""
    named_by_connection = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name not in _NOT_FORWARDED
        and not name.startswith(_NOT_FORWARDED_PREFIXES)
        and name not in named_by_connection
    }


def check_size(headers: Mapping[str, str], max_count: int, max_bytes: int, where: str) -> None:
    """Raise TooLarge when there are more headers than allowed, or longer ones."""
    if len(headers) > max_count:
        raise TooLarge(f"{where}: {len(headers)} headers; at most {max_count} are taken")
    size = sum(len(name) + len(value) for name, value in headers.items())
    if size > max_bytes:
        raise TooLarge(f"{where}: {size} bytes of headers; at most {max_bytes} are taken")
