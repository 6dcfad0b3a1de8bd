"""Which headers of a request go to the provider (PROTOCOL.md, B "The whole HTTP exchange")."""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Final

import msgspec

from bridge.errors import BadField, TooLarge
from bridge.formats.json_spans import JsonType, string_in, type_of
from bridge.settings.step import SETTING_PREFIX

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_BAD_IN_VALUE: Final = re.compile(r"[\r\n\0]")
_HOP_BY_HOP: Final = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_SET_BY_BRIDGE: Final = {"host", "content-length", "expect", "accept-encoding", "cf-cache-ttl", "cf-skip-cache"}
_NOT_FORWARDED: Final = _HOP_BY_HOP | _SET_BY_BRIDGE
_NOT_FORWARDED_PREFIXES: Final = (SETTING_PREFIX, "proxy-", "sec-websocket-")

_PROXY_HEADERS: Final = {
    "cdn-loop",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ew-via",
    "cf-ipcountry",
    "cf-pseudo-ipv4",
    "cf-ray",
    "cf-visitor",
    "cf-worker",
    "do-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-rewrite-url",
}
"""Headers by which proxies name the client that they ask for, or themselves."""
_PROXY_PREFIX: Final = "x-forwarded-"

_CLIENT_SIDE: Final = {"cookie", "origin", "referer", *_PROXY_HEADERS}
_CLIENT_SIDE_PREFIXES: Final = ("access-control-", "sec-fetch-", _PROXY_PREFIX)

_SOMETIMES_PROXY: Final = {"x-amzn-trace-id", "x-arr-log-id", "x-cloud-trace-context", "x-varnish"}
"""Headers that clients may send of themselves, too."""
_SOMETIMES_PROXY_PREFIXES: Final = (_PROXY_PREFIX, "cf-", "fastly-", "fly-", "x-azure-", "x-envoy-", "x-vercel-")

_MAX_EXPANSION: Final = 8
"""How many bytes of JSON one byte of headers may take: a control character takes six, a pretty printer some more."""

_texts = msgspec.json.Decoder(dict[str, str])
_spans = msgspec.json.Decoder(dict[str, msgspec.Raw])


def headers_in(span: msgspec.Raw, where: str, max_bytes: int) -> dict[str, str]:
    """The headers that a span holds: names in lower case, a number's text as the client wrote it.

    Raises BadField that names the header which cannot be sent; TooLarge for what is so long that it cannot hold
    `max_bytes` of headers or less, and would cost many times that to be taken apart.
    """
    found = type_of(span)
    if found is JsonType.NULL:
        return {}
    if found is not JsonType.OBJECT:
        raise BadField(f"{where}: expected an object, got {found}")
    size = memoryview(span).nbytes
    if size > _MAX_EXPANSION * max_bytes:
        raise TooLarge(f"{where}: {size} bytes of JSON, for at most {max_bytes} bytes of headers")
    return validate_headers(_pairs_in(span, where), where)


def _pairs_in(span: msgspec.Raw, where: str) -> Iterable[tuple[str, str]]:
    try:
        return _texts.decode(span).items()
    except msgspec.ValidationError:
        return [(name, _value_text(value, f"{where}.{name[:64]}")) for name, value in _spans.decode(span).items()]


def _value_text(span: msgspec.Raw, where: str) -> str:
    match type_of(span):
        case JsonType.STRING:
            return string_in(span)
        case JsonType.NUMBER:
            return bytes(span).decode()
        case other:
            raise BadField(f"{where}: expected a string or a number, got {other}")


def validate_headers(headers: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Names in lower case. Raises BadField that names the header which cannot be sent."""
    out: dict[str, str] = {}
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            allowed = "letters, digits and !#$%&'*+-.^_`|~"
            raise BadField(f"{where}: {name[:64]!r} is no header name; RFC 9110 allows {allowed}")
        if _BAD_IN_VALUE.search(value):
            raise BadField(f"{where}.{name[:64]}: a header's value may not hold CR, LF or NUL")
        out[name.lower()] = value
    return out


def request_headers(headers: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """The headers of an HTTP request: names in lower case, repeated ones joined (RFC 9110, section 5.3).

    Raises BadField for a value that is no UTF-8, unless the header stays here anyway: that is read as Latin-1.
    """
    joined: dict[str, str] = {}
    for given, value in headers:
        name = given.lower()
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            if not _is_client_side(name):
                raise BadField(f"{where}.{name[:64]}: the value is no UTF-8")
            value = value.encode("utf-8", "surrogateescape").decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def strip_proxy_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what a browser and the proxies before us say of themselves: the provider is not called by them.

    No cookie that a client has can be the provider's, for none of those is passed on.
    """
    return {name: value for name, value in headers.items() if not _is_client_side(name)}


def _is_client_side(name: str) -> bool:
    return name in _CLIENT_SIDE or name.startswith(_CLIENT_SIDE_PREFIXES)


def names_a_proxy(names: Iterable[str]) -> bool:
    """Whether one of the header names (lower case) is one that proxies add: the client may be anywhere then."""
    return any(
        name in _PROXY_HEADERS
        or name in _SOMETIMES_PROXY
        or (name.startswith(_SOMETIMES_PROXY_PREFIXES) and not name.startswith(SETTING_PREFIX))
        for name in names
    )


def forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The part of `headers` (lower-case names) that the provider gets to see."""
    kept_here: Set[str] = _NOT_FORWARDED
    if "connection" in headers:  # what it lists is hop-by-hop too (RFC 9110, section 7.6.1)
        kept_here = kept_here | {name.strip().lower() for name in headers["connection"].split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name not in kept_here and not name.startswith(_NOT_FORWARDED_PREFIXES)
    }


def check_size(headers: Mapping[str, str], max_count: int, max_bytes: int, where: str) -> None:
    """Raise TooLarge when there are more headers than allowed, or longer ones."""
    if len(headers) > max_count:
        raise TooLarge(f"{where}: {len(headers)} headers; at most {max_count} are taken")
    size = len("".join((*headers, *headers.values())).encode())
    if size > max_bytes:
        raise TooLarge(f"{where}: {size} bytes of headers; at most {max_bytes} are taken")
