"""Explain why no tape answers a request: name the nearest tape and the differences. Pure.

A message has at most 1,500 characters and contains no secret.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, zip_longest
from typing import Final, NamedTuple

from bridge.redact.text import redact_text
from bridge.tapes.matching import HOST_HEADER, STRICT, Matching, ReplayRequest

SHOWN_DIFFERENCES: Final = 5
COUNTED_DIFFERENCES: Final = 100
MAX_COMPARED_DEPTH: Final = 64
CLIPPED_CHARS: Final = 60
COMMON_CHARS: Final = 20
MESSAGE_CHARS: Final = 1500

_ABSENT: Final = object()


def explain(
    request: ReplayRequest, taped: Sequence[tuple[str, ReplayRequest]], matching: Matching = STRICT, hint: str = ""
) -> str:
    """Return a message for a request without a tape that describes the nearest one of `taped`.

    `hint` is the advice if no tape has that host and path.
    """
    near = [(name, other) for name, other in taped if _is_near(request, other)]
    explanation = (
        _nearest(request, near, matching) if near else _other_places(request, [other for _, other in taped], hint)
    )
    return _redacted(f"No tape for {request.name}\n{explanation}")


def ambiguous(request: ReplayRequest, hosts: Iterable[str]) -> str:
    """Return a message for a request that tapes of several hosts match."""
    how = f"in front of the path or in the header {HOST_HEADER}"
    return _redacted(f"Tapes of several hosts answer {request.name}\nChoose one, {how}: {', '.join(hosts)}")


def exhausted(request: ReplayRequest, last: str) -> str:
    """Return a message for a request whose tapes have all played."""
    return _redacted(f"No tape is left for {request.name}\nThe last was {last}, and exhausted tapes do not repeat")


class Mismatch(NamedTuple):
    """A client's message that differs from the one on the session's tape."""

    message: str
    """Position and differences."""
    reason: str
    """Short form for a close frame."""


def mismatch(name: str, number: int, sent: tuple[str, object], taped: tuple[str, object] | None, line: int) -> Mismatch:
    """Describe a client's message (opcode and compared part) that differs from the message on `line` of the tape.

    `taped` is None if the tape has no further message.
    """
    start = f"Message {number} of the client"
    if taped is None:
        text = f"{start} is one more than {name} has:\n  {_clipped(_shown(sent[1]), CLIPPED_CHARS)}"
        return Mismatch(_redacted(text), f"message {number} is one more than the tape has")
    between = (*differences(sent[0], taped[0], ("opcode",)), *differences(sent[1], taped[1], root="message"))
    lines = _listed(list(islice(between, COUNTED_DIFFERENCES)))
    text = "\n  ".join([f"{start} is not that of {name}, line {line}; sent ≠ taped:", *lines])
    return Mismatch(_redacted(text), redact_text(f"message {number} is not the tape's: {lines[0]}"))


def differences(sent: object, taped: object, path: tuple[str, ...] = (), *, root: str = "body") -> Iterator[str]:
    """Yield the differences of two JSON values in the order of `sent`: `messages[0].content: "Hi" ≠ "Ho"`."""
    if len(path) > MAX_COMPARED_DEPTH:
        return
    if isinstance(sent, dict) and isinstance(taped, dict):
        for name in {**sent, **taped}:
            yield from differences(sent.get(name, _ABSENT), taped.get(name, _ABSENT), (*path, f".{name}"))
    elif isinstance(sent, list) and isinstance(taped, list):
        for index, (one, other) in enumerate(zip_longest(sent, taped, fillvalue=_ABSENT)):
            yield from differences(one, other, (*path, f"[{index}]"))
    # True, 1 and 1.0 are equal in Python but not in JSON.
    elif type(sent) is not type(taped) or sent != taped:
        yield f"{''.join(path).removeprefix('.') or root}: {_pair(sent, taped)}"


def _redacted(message: str) -> str:
    return _clipped(redact_text(message), MESSAGE_CHARS)


def _is_near(request: ReplayRequest, taped: ReplayRequest) -> bool:
    return request.url.path == taped.url.path if request.any_host else request.host_and_path == taped.host_and_path


def _nearest(request: ReplayRequest, near: Iterable[tuple[str, ReplayRequest]], matching: Matching) -> str:
    compared = (
        (name, list(islice(_request_differences(request, other, matching), COUNTED_DIFFERENCES)))
        for name, other in near
    )
    name, found = min(compared, key=lambda one: len(one[1]))
    return "\n  ".join([f"The nearest is {name}; sent ≠ taped:", *_listed(found)])


def _listed(found: Sequence[str]) -> list[str]:
    shown = [*found[:SHOWN_DIFFERENCES]] or ["a difference too deep or too slight to be shown"]
    return [*shown, f"and {len(found) - SHOWN_DIFFERENCES} more"] if len(found) > SHOWN_DIFFERENCES else shown


def _request_differences(request: ReplayRequest, taped: ReplayRequest, matching: Matching) -> Iterator[str]:
    yield from differences(request.matched_method, taped.matched_method, ("method",))
    yield from differences(dict(matching.query(request)), dict(matching.query(taped)), ("query",))
    yield from differences(dict(matching.headers(request)), dict(matching.headers(taped)), ("headers",))
    yield from differences(matching.body(request), matching.body(taped))


def _other_places(request: ReplayRequest, taped: Iterable[ReplayRequest], hint: str) -> str:
    """Return the places of the tapes, the most similar first."""
    places = sorted(
        {other.host_and_path for other in taped}, key=lambda place: -_similarity(request.host_and_path, place)
    )
    what = "path" if request.any_host else "host and path"
    listed = "\n  ".join([f"No tape for this {what}; there are tapes for:", *places])
    return f"{hint}\n{listed}" if hint else listed


def _similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _pair(sent: object, taped: object) -> str:
    one, other = _shown(sent), _shown(taped)
    start = max(0, _common(one, other) - COMMON_CHARS)
    return f"{_window(one, start)} ≠ {_window(other, start)}"


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix: long texts are shown from where they differ."""
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
