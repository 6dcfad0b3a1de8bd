"""Read small JSON objects without decoding large or unexpected content."""

import re
from typing import Any, Final

import msgspec

from bridge.errors import BadField, TooLarge
from bridge.formats.json_spans import JsonType, type_of

MAX_MEMBERS: Final = 64
"""Number of members that are decoded; later ones are skipped."""
MAX_TOKENS: Final = 65_536
"""Number of strings, brackets and commas that are scanned to find those members."""

_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.?+[^"\\]*+)*+(?:"|\Z)|[\[\]{},]', re.DOTALL)
_COMMA: Final = ord(",")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder()


def small_object(span: msgspec.Raw, where: str) -> dict[str, Any]:
    """Return the first members of an object. A member that is an object or a list is returned as an empty one.

    Raise TooLarge if the object has so many parts that finding its first members would take long, BadField if a number
    is out of range.
    """
    members = _members.decode(_first_members(span, where))
    try:
        return {name: _shallow(value) for name, value in members.items()}
    except msgspec.ValidationError as error:
        raise BadField(f"{where}: {error}") from None


def _shallow(span: msgspec.Raw) -> Any:
    match type_of(span):
        case JsonType.OBJECT:
            return {}
        case JsonType.LIST:
            return []
        case _:
            return _value.decode(span)


def _first_members(span: msgspec.Raw, where: str) -> bytes | msgspec.Raw:
    """Return an object with the first MAX_MEMBERS members of the object in `span`."""
    text = memoryview(span)
    depth = commas = 0
    for count, token in enumerate(_TOKENS.finditer(text)):
        if count >= MAX_TOKENS:
            raise TooLarge(f"{where}: the object has too many parts; at most {MAX_MEMBERS} members are read")
        sign = text[token.start()]
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            depth -= 1
        elif sign == _COMMA and depth == 1:
            commas += 1
            if commas == MAX_MEMBERS:
                return bytes(text[: token.start()]) + b"}"
    return span
