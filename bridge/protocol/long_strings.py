"""Decode the contents of a long JSON string to bytes in parts.

One call over 64 MiB would hold the interpreter lock for its whole duration; a `str` takes up to four times the memory.
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import Final

import msgspec

from bridge.formats.json_spans import string_in
from bridge.formats.json_text import TURN_BYTES, parts_with_whole_escapes

_QUOTE: Final = b'"'
_GROUP_CHARS: Final = 4


def utf8_in(span: msgspec.Raw) -> bytes:
    """Return the string in `span` as UTF-8."""
    if memoryview(span).nbytes <= TURN_BYTES:
        return string_in(span).encode()
    text = BytesIO()
    text.writelines(_contents(span))
    return text.getvalue()


def base64_in(span: msgspec.Raw) -> bytes:
    """Decode the base64 string in `span`. Raise ValueError if it is invalid."""
    if memoryview(span).nbytes <= TURN_BYTES:
        return _decoded(string_in(span).encode("ascii"))
    data, rest, is_padded = BytesIO(), b"", False
    for part in _contents(span):
        if is_padded:
            raise ValueError("there are characters after the padding")
        coded = rest + part
        end = len(coded) - len(coded) % _GROUP_CHARS
        data.write(_decoded(coded[:end]))
        rest, is_padded = coded[end:], b"=" in coded[:end]
    data.write(_decoded(rest))
    return data.getvalue()


def _decoded(coded: bytes) -> bytes:
    """Decode whole groups. Python before 3.13 accepts more padding than a group can hold, so it is checked here."""
    if len(coded) % _GROUP_CHARS or coded.endswith(b"==="):
        raise ValueError("incorrect length or padding")
    return base64.b64decode(coded, validate=True)


def _contents(span: msgspec.Raw) -> Iterator[bytes]:
    view = memoryview(span)[1:-1]
    return (string_in(_QUOTE + part + _QUOTE).encode() for part in parts_with_whole_escapes(view))
