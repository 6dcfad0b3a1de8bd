"""Read the `eventId` by which a client names an event (bridge/docs/protocol.md, "Request")."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from bridge.errors import BadField
from bridge.formats import json_parse
from bridge.formats.json_spans import JsonType, type_of

MAX_EVENT_ID_CHARS: Final = 256

_MAX_ID_BYTES: Final = 12 * MAX_EVENT_ID_CHARS + 2
"""Longest JSON text of an id: each character written as two escapes, between quotes."""


class EventId(msgspec.Struct, frozen=True):
    """An event id. `key` is used for comparison; `raw` is the client's JSON, which frames echo unchanged."""

    key: str | int
    raw: bytes


def first_event_id(spans: Iterable[msgspec.Raw], source_bytes: Callable[[msgspec.Raw], bytes]) -> EventId | None:
    """Return the id in the first span that is not null, None if all are null. Raise BadField if it is invalid.

    `source_bytes` returns the client's own bytes of a span.
    """
    return next((_validated(span, source_bytes) for span in spans if type_of(span) is not JsonType.NULL), None)


def check_length(key: str | int) -> None:
    """Raise BadField if the id is empty or longer than MAX_EVENT_ID_CHARS."""
    if not 0 < len(str(key)) <= MAX_EVENT_ID_CHARS:
        raise BadField(f"eventId: expected 1 to {MAX_EVENT_ID_CHARS} characters")


def _validated(span: msgspec.Raw, source_bytes: Callable[[msgspec.Raw], bytes]) -> EventId:
    found = type_of(span)
    if found is not JsonType.STRING and found is not JsonType.NUMBER:
        raise BadField(f"eventId: expected a string or an integer, got {found}")
    raw = source_bytes(span)
    key = json_parse.parse(raw) if len(raw) <= _MAX_ID_BYTES else ""
    if not isinstance(key, str | int):
        raise BadField("eventId: expected a string or an integer, got a fraction")
    check_length(key)
    return EventId(key, raw)
