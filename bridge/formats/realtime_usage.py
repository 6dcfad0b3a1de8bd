"""Read the usage of realtime turns from the provider's messages, and add turns up.

OpenAI reports it in `response.done` (the Responses socket in `response.completed`), Gemini Live in a member
`usageMetadata` of any message (ai.google.dev/api/live, "UsageMetadata"). Each report counts one turn, including all
context that was read again for it, and each is billed: ai.google.dev/gemini-api/docs/live-api, "Pricing and billing";
bills are the sum of all `usageMetadata`, not the last one (discuss.ai.google.dev/t/173248).
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
"""Text that a message with usage contains, and the path of the usage in it."""

_OPENS: Final = ord("{")
_MAX_MESSAGE_BYTES: Final = 4 << 20
"""Longer messages are not parsed: no report of usage is so long."""

_MODELS: Final[tuple[Path, ...]] = (
    ("setup", "model"),  # Gemini Live, in its first message
    ("model",),  # OpenAI's Responses, in each `response.create`
    ("model_id",),  # Cartesia, in each request
)
_json: Final = msgspec.json.Decoder().decode
_MAX_FIRST_MESSAGE_BYTES: Final = 1 << 20


class Turn(NamedTuple):
    """Usage of one turn of a realtime session."""

    usage: Usage
    model: str | None
    """The model that answered, if the provider names it."""


def turn_in(data: bytes) -> Turn | None:
    """Return the usage that a message of the provider reports. Almost all messages need only a search for one word.

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
    """Return the model in a client's first message, for providers that read it from there.

    Google uses resource names, `models/MODEL` or longer.
    """
    message = read_json(data, _json) if len(data) <= _MAX_FIRST_MESSAGE_BYTES else None
    model = next((found for path in _MODELS if isinstance(found := at(message, path), str)), None)
    return model and model.rpartition("models/")[2]


def add_usage(first: Usage | None, second: Usage) -> Usage:
    """Return the sum of two usages. A count that is unknown in one of them is that of the other."""
    if first is None:
        return second
    return Usage(*map(_sum, msgspec.structs.astuple(first), msgspec.structs.astuple(second)))


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first if second is None else first + second


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
