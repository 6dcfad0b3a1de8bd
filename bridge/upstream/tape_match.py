"""Which tape answers a request; and, when none does, which one nearly did. Pure."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, zip_longest
from typing import NamedTuple
from urllib.parse import unquote_plus

import httpx
import orjson

from bridge import redact

SHOWN_DIFFERENCES = 5
COUNTED_DIFFERENCES = 100
DEEPEST_COMPARED = 64
CLIPPED_CHARS = 60
COMMON_CHARS = 20
MESSAGE_CHARS = 1500


class Key(NamedTuple):
    """What must be equal for a tape to answer a request."""

    method: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...]
    """Sorted by name, decoded, without secrets: a tape does not hold those."""
    body: str
    """SHA-256 of the body as canonical JSON, or of its bytes when it is no JSON."""


class Asked(NamedTuple):
    """A request, as far as tapes look at it."""

    method: str
    url: httpx.URL
    body: bytes

    @property
    def key(self) -> Key:
        body = hashlib.sha256(_canonical(self.body)).hexdigest()
        return Key(self.method.upper(), self.url.netloc.decode(), self.url.path, _query(self.url), body)

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {redact.url(str(self.url))}"

    @property
    def place(self) -> str:
        return f"{self.url.netloc.decode()}{self.url.path}"


def miss(asked: Asked, taped: Sequence[tuple[str, Asked]]) -> str:
    """Says that no tape answers `asked`, and which of those named in `taped` nearly does.

    At most 1,500 characters, without secrets.
    """
    near = [(name, other) for name, other in taped if other.place == asked.place]
    explanation = _nearest(asked, near) if near else _elsewhere(asked, [other for _, other in taped])
    return _clipped(redact.text(f"No tape for {asked.name}\n{explanation}"), MESSAGE_CHARS)


def differences(asked: object, taped: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Where two JSON values differ, in the order of `asked`: `messages[0].content: "Hi" ≠ "Ho"`."""
    if len(path) > DEEPEST_COMPARED:
        return
    if isinstance(asked, dict) and isinstance(taped, dict):
        for name in {**asked, **taped}:
            yield from differences(asked.get(name, _ABSENT), taped.get(name, _ABSENT), (*path, f".{name}"))
    elif isinstance(asked, list) and isinstance(taped, list):
        for index, (one, other) in enumerate(zip_longest(asked, taped, fillvalue=_ABSENT)):
            yield from differences(one, other, (*path, f"[{index}]"))
    # Python holds True, 1 and 1.0 to be equal; JSON does not.
    elif type(asked) is not type(taped) or asked != taped:
        yield f"{''.join(path).removeprefix('.') or 'body'}: {_pair(asked, taped)}"


_ABSENT = object()


def _nearest(asked: Asked, near: Iterable[tuple[str, Asked]]) -> str:
    compared = ((name, list(islice(_between(asked, other), COUNTED_DIFFERENCES))) for name, other in near)
    name, found = min(compared, key=lambda one: len(one[1]))
    shown = found[:SHOWN_DIFFERENCES] or ["a difference too deep or too slight to be shown"]
    more = [f"and {len(found) - SHOWN_DIFFERENCES} more"] if len(found) > SHOWN_DIFFERENCES else []
    return "\n  ".join([f"The nearest is {name}; asked ≠ taped:", *shown, *more])


def _between(asked: Asked, taped: Asked) -> Iterator[str]:
    yield from differences(asked.method.upper(), taped.method.upper(), ("method",))
    yield from differences(dict(_query(asked.url)), dict(_query(taped.url)), ("query",))
    yield from differences(_value(asked.body), _value(taped.body))


def _elsewhere(asked: Asked, taped: Iterable[Asked]) -> str:
    """The places that there are tapes for, the most like first."""
    places = sorted({other.place for other in taped}, key=lambda place: -_likeness(asked.place, place))
    return "\n  ".join(["No tape for this host and path; there are tapes for:", *places])


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _query(url: httpx.URL) -> tuple[tuple[str, str], ...]:
    pairs = (part.partition("=") for part in url.query.decode("ascii").split("&") if part)
    decoded = ((unquote_plus(name), unquote_plus(value)) for name, _, value in pairs)
    return tuple(sorted((name, value) for name, value in decoded if not redact.is_secret_name(name)))


def _canonical(body: bytes) -> bytes:
    value = _value(body)
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


def _pair(asked: object, taped: object) -> str:
    one, other = _shown(asked), _shown(taped)
    start = max(0, _common(one, other) - COMMON_CHARS)
    return f"{_window(one, start)} ≠ {_window(other, start)}"


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike: long ones often do, and are shown from where they part."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _window(text: str, start: int) -> str:
    if len(text) <= CLIPPED_CHARS:
        return text
    return ("…" if start else "") + _clipped(text[start:], CLIPPED_CHARS)


def _clipped(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "(absent)"
    return repr(value) if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
