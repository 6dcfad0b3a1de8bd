"""Read members of a client's JSON on demand from their source text, with errors that name the field."""

from enum import StrEnum
from functools import cache
from typing import Any, Final

import msgspec

from bridge.errors import BadField

ABSENT: Final = msgspec.Raw()
"""The span of a missing member."""


class JsonType(StrEnum):
    """The type of a span's value, as named in error messages."""

    OBJECT = "an object"
    LIST = "a list"
    STRING = "a string"
    NUMBER = "a number"
    BOOLEAN = "a boolean"
    NULL = "null"


_BY_FIRST_BYTE: Final = {
    **dict.fromkeys(b"-0123456789", JsonType.NUMBER),
    **dict.fromkeys(b"tf", JsonType.BOOLEAN),
    **dict(zip(b'{["n', (JsonType.OBJECT, JsonType.LIST, JsonType.STRING, JsonType.NULL), strict=True)),
}

string_in = msgspec.json.Decoder(str).decode
"""Return the text of a span that holds a string."""


def type_of(span: msgspec.Raw) -> JsonType:
    """Return the type of a span's value. A missing member counts as null."""
    return JsonType.NULL if span is ABSENT else _BY_FIRST_BYTE[memoryview(span)[0]]


def text_in(span: msgspec.Raw, where: str, name: str) -> str | None:
    """Return the string that a member holds, None if it is missing or null. Raise BadField for any other type."""
    if span is ABSENT:
        return None
    match type_of(span):
        case JsonType.STRING:
            return string_in(span)
        case JsonType.NULL:
            return None
        case other:
            raise BadField(f"{where}.{name}: expected a string, got {other}")


def elements_in(span: msgspec.Raw, max_count: int) -> list[msgspec.Raw]:
    """Return the first elements of a list, at most `max_count` + 1: reading millions takes seconds and gigabytes."""
    return [element for element in msgspec.structs.astuple(_first(max_count + 1).decode(span)) if element is not ABSENT]


@cache
def _first(count: int) -> msgspec.json.Decoder[Any]:
    """Return a decoder that decodes the first elements of a list into a struct and skips the rest."""
    members = [(f"at_{index}", msgspec.Raw, ABSENT) for index in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("First", members, array_like=True))
