"""Compares requests with tapes: a tape answers requests with the same match key. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

import httpx
import orjson

from bridge.redact.text import is_secret_name, redact_headers, redact_url
from bridge.tapes.exchange import SentRequest, tape_request
from bridge.tapes.json_path import parse_path, without
from bridge.tapes.lines import SOCKET_METHOD, pairs

HOST_HEADER: Final = "x-bridge-host"
"""Header with the provider's host, for clients that cannot put it into the URL."""
_REPLAY_HEADER_PREFIX: Final = "x-bridge-"
"""Prefix of headers for the replay itself, not for the provider."""
_BOUNDARY: Final = re.compile(r"multipart/.*;\s*boundary=\"?([^\";,]+)", re.IGNORECASE)


class InvalidUrl(ValueError):
    """The URL is invalid; the message says why."""


class ReplayRequest(NamedTuple):
    """The parts of a request that are compared with tapes."""

    method: str
    url: httpx.URL
    body: bytes
    headers: httpx.Headers = httpx.Headers()
    any_host: bool = False
    """The request has no provider's host, so a tape of any host may answer."""

    @classmethod
    def of(cls, method: str, url: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> "ReplayRequest":
        """Create a request. Raises InvalidUrl."""
        try:
            return cls(method, httpx.URL(url), body, httpx.Headers(list(headers), encoding="latin-1"))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidUrl(f"Invalid URL: {error}") from None

    def as_recorded(self) -> "ReplayRequest":
        """Return the request as a recorder would have written it: fillers replace its secrets."""
        request = tape_request(SentRequest(self.method, str(self.url), self.headers.multi_items(), self.body))
        recorded = ReplayRequest.of(request.method, request.url, request.body, pairs(request.headers))
        return recorded._replace(any_host=self.any_host)

    @property
    def host(self) -> str:
        """Return the host with its port, unless it is the default port."""
        return "" if self.any_host else self.url.netloc.decode()

    @property
    def host_and_path(self) -> str:
        return f"{self.host}{self.url.path}"

    @property
    def name(self) -> str:
        """Return the method and the URL without secrets."""
        url = self.url.raw_path.decode("ascii") if self.any_host else str(self.url)
        return f"{self.matched_method} {redact_url(url)}"

    @property
    def matched_method(self) -> str:
        """Return the compared method: that of the request, or SOCKET_METHOD for a WebSocket handshake."""
        return SOCKET_METHOD if self.url.scheme in {"ws", "wss"} else self.method.upper()


class MatchKey(NamedTuple):
    """Parts that must be equal for a tape to answer a request."""

    host: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: str
    """SHA-256 of the body as canonical JSON, or of its bytes if it is not JSON."""


@dataclass(frozen=True, slots=True)
class Matching:
    """Rules for comparing requests. By default the method, host, path, query (in any order) and body must be equal.

    Bodies are equal if their JSON or their bytes are; the boundary of a multipart body is ignored. Secret query
    parameters are ignored, because tapes do not contain them. Raises InvalidPath for an invalid path in `ignore_json`.
    """

    ignore_query: tuple[str, ...] = ()
    """Names of query parameters that may differ or be missing."""
    ignore_json: tuple[str, ...] = ()
    """Paths of JSON values that may differ or be missing: `$.metadata.user_id`, `$.messages[*].id`."""
    match_headers: tuple[str, ...] = ()
    """Names of headers that must be equal too. Only the scheme of credentials is compared."""

    def __post_init__(self) -> None:
        for path in self.ignore_json:
            parse_path(path)

    def key(self, request: ReplayRequest) -> MatchKey:
        body = hashlib.sha256(_canonical(self.body(request))).hexdigest()
        return MatchKey(
            request.host, request.matched_method, request.url.path, self.query(request), self.headers(request), body
        )

    def query(self, request: ReplayRequest) -> tuple[tuple[str, str], ...]:
        """Return the compared query parameters, decoded and sorted by name."""
        pairs = (part.partition("=") for part in request.url.query.decode("ascii").split("&") if part)
        decoded = ((unquote_plus(name), unquote_plus(value)) for name, _, value in pairs)
        return tuple(sorted((name, value) for name, value in decoded if self._counts(name)))

    def headers(self, request: ReplayRequest) -> tuple[tuple[str, str], ...]:
        """Return the compared headers in the order of `match_headers`."""
        names = (name.lower() for name in self.match_headers)
        there_are = ((name, request.headers.get(name)) for name in names if not name.startswith(_REPLAY_HEADER_PREFIX))
        return tuple(redact_headers((name, value) for name, value in there_are if value is not None))

    def body(self, request: ReplayRequest) -> object:
        """Return the compared part of the body: a JSON value, or bytes if it is not JSON."""
        value = self.message(request.body)
        return _unbounded(value, request.headers.get("content-type", "")) if isinstance(value, bytes) else value

    def message(self, data: bytes) -> object:
        """Return the compared part of a body or socket message: a JSON value, or bytes if it is not JSON."""
        value = _value(data)
        if not isinstance(value, bytes):
            for path in self.ignore_json:
                value = without(value, parse_path(path))
        return value

    def match(self, one: bytes, other: bytes) -> bool:
        """Return true if two messages are equal by these rules."""
        return one == other or _canonical(self.message(one)) == _canonical(self.message(other))

    def _counts(self, parameter: str) -> bool:
        return parameter not in self.ignore_query and not is_secret_name(parameter)


STRICT: Final = Matching()


def _canonical(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a lone surrogate, an integer of more than 64 bits, or more depth than orjson writes
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _value(body: bytes) -> object:
    """Return the JSON value of the body, or the body if it is not JSON."""
    for loads in (orjson.loads, json.loads):
        try:
            return loads(body)
        except (ValueError, RecursionError):
            continue
    return body


def _unbounded(body: bytes, content_type: str) -> bytes:
    """Replace the random boundary of a multipart body by a fixed one (RFC 2046, section 5.1.1)."""
    found = _BOUNDARY.match(content_type)
    return body if found is None else body.replace(found[1].encode(), b"boundary")
