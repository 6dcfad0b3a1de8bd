"""What a turn of a realtime session used, as the provider tells it; and the sum of turns.

OpenAI tells it in `response.done` (and of its Responses socket in `response.completed`), Gemini Live in a member
`usageMetadata` beside whatever else a message holds (ai.google.dev/api/live, "UsageMetadata"). Each counts one turn,
with all the context that was read again for it, and each is billed: ai.google.dev/gemini-api/docs/live-api, "Pricing
and billing"; bills are the sum of all `usageMetadata`, not the last (discuss.ai.google.dev/t/173248).
"""

from typing import Any, Final, NamedTuple

import msgspec
import orjson

from bridge.formats.json_parse import has_many_parts
from bridge.formats.request_fields import read_json
from bridge.formats.usage import Path, Usage, UsageCounter, at

_MARKS: Final[tuple[tuple[bytes, Path], ...]] = (
    (b'"usageMetadata"', ("usageMetadata",)),
    (b'"response.done"', ("response", "usage")),
    (b'"response.completed"', ("response", "usage")),
    (b'"response.incomplete"', ("response", "usage")),
)
"""What a message that tells of usage holds, and where in it that stands."""

_OPENS: Final = ord("{")
_MAX_MESSAGE_BYTES: Final = 4 << 20
"""A message that is longer is not taken apart: no turn takes so many words to be counted."""

_MODELS: Final[tuple[Path, ...]] = (
    ("setup", "model"),  # Gemini Live, in its first message
    ("model",),  # OpenAI's Responses, in each `response.create`
    ("model_id",),  # Cartesia, in each request
)
_json: Final = msgspec.json.Decoder().decode
_MAX_FIRST_MESSAGE_BYTES: Final = 1 << 20


class Turn(NamedTuple):
    usage: Usage
    model: str | None
    """That answered, if the provider says so."""


def turn_in(data: bytes) -> Turn | None:
    """What any message of the provider's tells of usage. Almost all are let pass after a search for one word.

    Never raises.
    """
    if b'"usage' not in data or data[0] != _OPENS or len(data) > _MAX_MESSAGE_BYTES or has_many_parts(data):
        return None
    path = next((path for mark, path in _MARKS if mark in data), None)
    if path is None or not isinstance(message := _parsed(data), dict):
        return None
    counters = UsageCounter()
    counters.add(message, (path,))
    usage, model = counters.usage(), at(message, ("response", "model"))
    return None if usage is None else Turn(usage, model if isinstance(model, str) else None)


def requested_model(data: bytes) -> str | None:
    """The model that a client's first message names, where sockets of its provider take it from there.

    Google's are names of resources, `models/MODEL` or longer.
    """
    message = read_json(data, _json) if len(data) <= _MAX_FIRST_MESSAGE_BYTES else None
    model = next((found for path in _MODELS if isinstance(found := at(message, path), str)), None)
    return model and model.rpartition("models/")[2]


def add_usage(one: Usage | None, other: Usage) -> Usage:
    """What is unknown of one turn is not made up, but what is known of the other stays."""
    if one is None:
        return other
    return Usage(*map(_sum, msgspec.structs.astuple(one), msgspec.structs.astuple(other)))


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
