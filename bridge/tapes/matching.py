"""What a request must have in common with a tape to be answered by it. Pure."""

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
"""Which host is meant by a client that cannot say so in its URL."""
_OURS: Final = "x-bridge-"
"""What headers begin with that speak to the replay, and not to the provider."""
_BOUNDARY: Final = re.compile(r"multipart/.*;\s*boundary=\"?([^\";,]+)", re.IGNORECASE)


class BadUrl(ValueError):
    """What was given is no URL; the message says why."""


class ReplayRequest(NamedTuple):
    """A request, as far as tapes look at it."""

    method: str
    url: httpx.URL
    body: bytes
    headers: httpx.Headers = httpx.Headers()
    any_host: bool = False
    """The URL's host is nobody's: a tape of whichever host may answer."""

    @classmethod
    def of(cls, method: str, url: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> "ReplayRequest":
        """Raises BadUrl."""
        try:
            return cls(method, httpx.URL(url), body, httpx.Headers(list(headers), encoding="latin-1"))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise BadUrl(f"No URL: {error}") from None

    def as_recorded(self) -> "ReplayRequest":
        """What a recorder would have written of it: with fillers in the place of its secrets."""
        request = tape_request(SentRequest(self.method, str(self.url), self.headers.multi_items(), self.body))
        recorded = ReplayRequest.of(request.method, request.url, request.body, pairs(request.headers))
        return recorded._replace(any_host=self.any_host)

    @property
    def host(self) -> str:
        """With its port, unless that is the scheme's own."""
        return "" if self.any_host else self.url.netloc.decode()

    @property
    def place(self) -> str:
        return f"{self.host}{self.url.path}"

    @property
    def name(self) -> str:
        """Without secrets."""
        url = self.url.raw_path.decode("ascii") if self.any_host else str(self.url)
        return f"{self.what} {redact_url(url)}"

    @property
    def what(self) -> str:
        """The method; of a WebSocket's handshake, what stands for one."""
        return SOCKET_METHOD if self.url.scheme in {"ws", "wss"} else self.method.upper()


class MatchKey(NamedTuple):
    """What must be equal for a tape to answer a request."""

    host: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: str
    """SHA-256 of the body as canonical JSON, or of its bytes when it is no JSON."""


@dataclass(frozen=True, slots=True)
class Matching:
    """How alike a request and a tape have to be. Strict as it comes: method, host, path, query in any order, and body.

    Two bodies are alike when their JSON is, or when they are the same bytes; the boundary of a multipart body means
    nothing. The values of secret query parameters never count, for a tape does not hold them. Raises BadPath for a path
    in `ignore_json` that is none.
    """

    ignore_query: tuple[str, ...] = ()
    """Names of query parameters that may differ, or be missing."""
    ignore_json: tuple[str, ...] = ()
    """Paths into a JSON body to what may differ, or be missing: `$.metadata.user_id`, `$.messages[*].id`."""
    match_headers: tuple[str, ...] = ()
    """Names of headers that must be alike, too. Of one that holds a credential only the scheme is compared."""

    def __post_init__(self) -> None:
        for path in self.ignore_json:
            parse_path(path)

    def key(self, request: ReplayRequest) -> MatchKey:
        body = hashlib.sha256(_canonical(self.body(request))).hexdigest()
        return MatchKey(request.host, request.what, request.url.path, self.query(request), self.headers(request), body)

    def query(self, request: ReplayRequest) -> tuple[tuple[str, str], ...]:
        """What counts of the query: sorted by name, decoded."""
        pairs = (part.partition("=") for part in request.url.query.decode("ascii").split("&") if part)
        decoded = ((unquote_plus(name), unquote_plus(value)) for name, _, value in pairs)
        return tuple(sorted((name, value) for name, value in decoded if self._counts(name)))

    def headers(self, request: ReplayRequest) -> tuple[tuple[str, str], ...]:
        """What counts of the headers: those that there are of `match_headers`, in its order."""
        names = (name.lower() for name in self.match_headers)
        there_are = ((name, request.headers.get(name)) for name in names if not name.startswith(_OURS))
        return tuple(redact_headers((name, value) for name, value in there_are if value is not None))

    def body(self, request: ReplayRequest) -> object:
        """What counts of the body: a JSON value; or bytes, when it is none."""
        value = self.message(request.body)
        return _unbounded(value, request.headers.get("content-type", "")) if isinstance(value, bytes) else value

    def message(self, data: bytes) -> object:
        """What counts of a body or of a message on a socket: a JSON value; or bytes, when it is none."""
        value = _value(data)
        if not isinstance(value, bytes):
            for path in self.ignore_json:
                value = without(value, parse_path(path))
        return value

    def are_alike(self, one: bytes, other: bytes) -> bool:
        """Of two messages."""
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
    """The body's JSON; or the body, when it is none."""
    for loads in (orjson.loads, json.loads):
        try:
            return loads(body)
        except (ValueError, RecursionError):
            continue
    return body


def _unbounded(body: bytes, content_type: str) -> bytes:
    """A multipart body with a boundary that is always the same: clients roll dice for theirs (RFC 2046, 5.1.1)."""
    found = _BOUNDARY.match(content_type)
    return body if found is None else body.replace(found[1].encode(), b"boundary")
