"""What a realtime session used, told by the provider turn by turn, and added up here.

OpenAI tells it in `response.done` (and of its Responses socket in `response.completed`), Gemini Live in a member
`usageMetadata` beside the turn's content (ai.google.dev/api/live, "UsageMetadata").
"""

from typing import Any, Final

import msgspec
import orjson

from bridge.wire.usage import Path, Tally, Usage, at

_MARKS: Final[tuple[tuple[bytes, Path], ...]] = (
    (b'"usageMetadata"', ("usageMetadata",)),
    (b'"response.done"', ("response", "usage")),
    (b'"response.completed"', ("response", "usage")),
    (b'"response.incomplete"', ("response", "usage")),
)
"""What a message that tells of usage holds, and where in it that stands."""

_OPENS: Final = ord("{")
_SETUP: Final = b'"setup"'
_LONGEST_BYTES: Final = 4 << 20
"""A message that is longer is not taken apart: no turn takes so many words to be counted."""
_LONGEST_SETUP_BYTES: Final = 1 << 20


class SessionUsage:
    """The turns of one session. A turn's counts are a sum of their own: context that is read again is paid again."""

    def __init__(self) -> None:
        self._total: Usage | None = None

    def look(self, data: bytes) -> None:
        """Any message of the provider's. Almost all are let pass after a search for one word. Never raises."""
        if b'"usage' in data and data[0] == _OPENS and len(data) <= _LONGEST_BYTES:
            self._take(data)

    def usage(self) -> Usage | None:
        """None when no turn told."""
        return self._total

    def _take(self, data: bytes) -> None:
        path = next((path for mark, path in _MARKS if mark in data), None)
        if path is None or not isinstance(message := _parsed(data), dict):
            return
        tally = Tally()
        tally.add(message, (path,))
        if (usage := tally.usage()) is not None:
            self._total = usage if self._total is None else _sum(self._total, usage)


def model_in_setup(data: bytes) -> str | None:
    """The model that a client's first message names, if it is Gemini Live's `setup`."""
    if _SETUP not in data or len(data) > _LONGEST_SETUP_BYTES:
        return None
    model = at(_parsed(data), ("setup", "model"))
    return model.rpartition("/")[2] if isinstance(model, str) else None


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*map(_added, msgspec.structs.astuple(one), msgspec.structs.astuple(other)))


def _added(one: int | None, other: int | None) -> int | None:
    """What is unknown of one turn is not made up, but what is known of the other stays."""
    return other if one is None else one if other is None else one + other
