"""Read and check request headers, and select those that go to the provider.

See bridge/docs/protocol.md, "The whole HTTP exchange".
"""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Final

import msgspec

from bridge.errors import BadField, TooLarge
from bridge.formats.json_spans import JsonType, string_in, type_of
from bridge.settings.overrides import SETTING_PREFIX

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
"""Headers by which proxies name their client or themselves."""
_PROXY_PREFIX: Final = "x-forwarded-"

_CLIENT_SIDE: Final = {"cookie", "origin", "referer", *_PROXY_HEADERS}
_CLIENT_SIDE_PREFIXES: Final = ("access-control-", "sec-fetch-", _PROXY_PREFIX)

_SOMETIMES_PROXY: Final = {"x-amzn-trace-id", "x-arr-log-id", "x-cloud-trace-context", "x-varnish"}
"""Headers that proxies add, but that clients may send as well."""
_SOMETIMES_PROXY_PREFIXES: Final = (_PROXY_PREFIX, "cf-", "fastly-", "fly-", "x-azure-", "x-envoy-", "x-vercel-")

_MAX_EXPANSION: Final = 8
"""Most bytes of JSON per byte of headers: an escaped control character takes six, indentation a few more."""

_texts = msgspec.json.Decoder(dict[str, str])
_spans = msgspec.json.Decoder(dict[str, msgspec.Raw])


def headers_in(span: msgspec.Raw, where: str, max_bytes: int) -> dict[str, str]:
    """Return the headers in a span: names in lower case; a number becomes the text that the client wrote.

    Raise BadField, which names the header, if one cannot be sent. Raise TooLarge if the span is so long that it must
    hold more than `max_bytes` of headers: parsing it would cost a multiple of that.
    """
    found = type_of(span)
    if found is JsonType.NULL:
        return {}
    if found is not JsonType.OBJECT:
        raise BadField(f"{where}: expected an object, got {found}")
    size = memoryview(span).nbytes
    if size > _MAX_EXPANSION * max_bytes:
        raise TooLarge(f"{where}: {size} bytes of JSON; at most {max_bytes} bytes of headers are allowed")
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
    """Return the headers with names in lower case. Raise BadField, which names the header, if one cannot be sent."""
    out: dict[str, str] = {}
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            allowed = "letters, digits and !#$%&'*+-.^_`|~"
            raise BadField(f"{where}: {name[:64]!r} is not a valid header name; RFC 9110 allows {allowed}")
        if _BAD_IN_VALUE.search(value):
            raise BadField(f"{where}.{name[:64]}: a header value must not contain CR, LF or NUL")
        out[name.lower()] = value
    return out


def request_headers(headers: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Return the headers of an HTTP request: names in lower case, repeated headers joined (RFC 9110, section 5.3).

    Raise BadField if a value is not UTF-8. Headers that are not forwarded are read as Latin-1 instead.
    """
    joined: dict[str, str] = {}
    for original, value in headers:
        name = original.lower()
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            if not _is_client_side(name):
                raise BadField(f"{where}.{name[:64]}: the value is not valid UTF-8")
            value = value.encode("utf-8", "surrogateescape").decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def strip_proxy_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers without those that browsers and proxies add for the hop to the bridge.

    Cookies are removed too: a client has no cookie of the provider, because none is passed on to it.
    """
    return {name: value for name, value in headers.items() if not _is_client_side(name)}


def _is_client_side(name: str) -> bool:
    return name in _CLIENT_SIDE or name.startswith(_CLIENT_SIDE_PREFIXES)


def names_a_proxy(names: Iterable[str]) -> bool:
    """Return True if proxies add one of these headers (lower-case names): then the client may be on any network."""
    return any(
        name in _PROXY_HEADERS
        or name in _SOMETIMES_PROXY
        or (name.startswith(_SOMETIMES_PROXY_PREFIXES) and not name.startswith(SETTING_PREFIX))
        for name in names
    )


def forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `headers` (lower-case names) that is sent to the provider."""
    dropped: Set[str] = _NOT_FORWARDED
    if "connection" in headers:  # the headers that it lists are hop-by-hop (RFC 9110, section 7.6.1)
        dropped = dropped | {name.strip().lower() for name in headers["connection"].split(",")}
    return {
        name: value
        for name, value in headers.items()
        if name not in dropped and not name.startswith(_NOT_FORWARDED_PREFIXES)
    }


def check_size(headers: Mapping[str, str], max_count: int, max_bytes: int, where: str) -> None:
    """Raise TooLarge if there are more headers than allowed, or if they are longer."""
    if len(headers) > max_count:
        raise TooLarge(f"{where}: {len(headers)} headers; at most {max_count} are allowed")
    size = len("".join((*headers, *headers.values())).encode())
    if size > max_bytes:
        raise TooLarge(f"{where}: {size} bytes of headers; at most {max_bytes} are allowed")
