"""Parts of a client's JSON, as it wrote them. Each is read when it is asked for, and a fault names its field."""

from enum import StrEnum
from functools import cache
from typing import Any, Final

import msgspec

from bridge.errors import BadField

ABSENT: Final = msgspec.Raw()
"""The span of a member that is not there."""


class JsonType(StrEnum):
    """What a span holds, in a message's words."""

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
"""The text of a span that holds a string."""


def type_of(span: msgspec.Raw) -> JsonType:
    """A member that is not there is as good as one that is null."""
    return JsonType.NULL if span is ABSENT else _BY_FIRST_BYTE[memoryview(span)[0]]


def text_in(span: msgspec.Raw, where: str, name: str) -> str | None:
    """The string that a member holds, None if none is there. Raises BadField for anything else."""
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
    """The first elements of a list, one more than `most`: to look at millions takes seconds and gigabytes."""
    return [each for each in msgspec.structs.astuple(_first(max_count + 1).decode(span)) if each is not ABSENT]


@cache
def _first(count: int) -> msgspec.json.Decoder[Any]:
    """Decodes the first elements of a list into the members of a struct, and skips the rest."""
    members = [(f"at_{index}", msgspec.Raw, ABSENT) for index in range(count)]
    return msgspec.json.Decoder(msgspec.defstruct("First", members, array_like=True))
