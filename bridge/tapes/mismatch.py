"""When no tape answers a request: which one nearly did, and what kept it from doing so. Pure.

No message has more than 1,500 characters, and none holds a secret.
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
DEEPEST_COMPARED: Final = 64
CLIPPED_CHARS: Final = 60
COMMON_CHARS: Final = 20
MESSAGE_CHARS: Final = 1500

_ABSENT: Final = object()


def explain(
    request: ReplayRequest, taped: Sequence[tuple[str, ReplayRequest]], matching: Matching = STRICT, hint: str = ""
) -> str:
    """Says that no tape answers `asked`, and which of those named in `taped` nearly does.

    `hint` says what to do where no tape is of that host and path.
    """
    near = [(name, other) for name, other in taped if _is_near(request, other)]
    explanation = (
        _nearest(request, near, matching) if near else _elsewhere(request, [other for _, other in taped], hint)
    )
    return _told(f"No tape for {request.name}\n{explanation}")


def ambiguous(request: ReplayRequest, hosts: Iterable[str]) -> str:
    """Says that tapes of several hosts answer `asked`."""
    how = f"in front of the path or in the header {HOST_HEADER}"
    return _told(f"Tapes of several hosts answer {request.name}\nChoose one, {how}: {', '.join(hosts)}")


def exhausted(request: ReplayRequest, last: str) -> str:
    """Says that every tape that answers `asked` has played."""
    return _told(f"No tape is left for {request.name}\nThe last was {last}, and exhausted tapes do not repeat")


class Mismatch(NamedTuple):
    """A message of a client's that is not the one that its session's tape has."""

    told: str
    """Where, and what differs."""
    reason: str
    """The same in short, for a close frame."""


def mismatch(name: str, number: int, said: tuple[str, object], taped: tuple[str, object] | None, line: int) -> Mismatch:
    """Message `number` of the client's, its opcode and what counts of it; and what the tape `name` has on its `line`
    in place of it, if it has something."""
    start = f"Message {number} of the client"
    if taped is None:
        told = f"{start} is one more than {name} has:\n  {_clipped(_shown(said[1]), CLIPPED_CHARS)}"
        return Mismatch(_told(told), f"message {number} is one more than the tape has")
    between = (*differences(said[0], taped[0], ("opcode",)), *differences(said[1], taped[1], whole="message"))
    lines = _listed(list(islice(between, COUNTED_DIFFERENCES)))
    told = "\n  ".join([f"{start} is not that of {name}, line {line}; said ≠ taped:", *lines])
    return Mismatch(_told(told), redact_text(f"message {number} is not the tape's: {lines[0]}"))


def differences(asked: object, taped: object, path: tuple[str, ...] = (), *, whole: str = "body") -> Iterator[str]:
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
        yield f"{''.join(path).removeprefix('.') or whole}: {_pair(asked, taped)}"


def _told(message: str) -> str:
    return _clipped(redact_text(message), MESSAGE_CHARS)


def _is_near(request: ReplayRequest, taped: ReplayRequest) -> bool:
    return request.url.path == taped.url.path if request.any_host else request.place == taped.place


def _nearest(request: ReplayRequest, near: Iterable[tuple[str, ReplayRequest]], matching: Matching) -> str:
    compared = ((name, list(islice(_between(request, other, matching), COUNTED_DIFFERENCES))) for name, other in near)
    name, found = min(compared, key=lambda one: len(one[1]))
    return "\n  ".join([f"The nearest is {name}; asked ≠ taped:", *_listed(found)])


def _listed(found: Sequence[str]) -> list[str]:
    shown = [*found[:SHOWN_DIFFERENCES]] or ["a difference too deep or too slight to be shown"]
    return [*shown, f"and {len(found) - SHOWN_DIFFERENCES} more"] if len(found) > SHOWN_DIFFERENCES else shown


def _between(request: ReplayRequest, taped: ReplayRequest, matching: Matching) -> Iterator[str]:
    yield from differences(request.what, taped.what, ("method",))
    yield from differences(dict(matching.query(request)), dict(matching.query(taped)), ("query",))
    yield from differences(dict(matching.headers(request)), dict(matching.headers(taped)), ("headers",))
    yield from differences(matching.body(request), matching.body(taped))


def _elsewhere(request: ReplayRequest, taped: Iterable[ReplayRequest], hint: str) -> str:
    """The places that there are tapes for, the most like first."""
    places = sorted({other.place for other in taped}, key=lambda place: -_likeness(request.place, place))
    what = "path" if request.any_host else "host and path"
    listed = "\n  ".join([f"No tape for this {what}; there are tapes for:", *places])
    return f"{hint}\n{listed}" if hint else listed


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


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
