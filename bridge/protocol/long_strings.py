"""The contents of a JSON string as bytes, worked out in parts: one call over 64 MiB would hold the interpreter's lock.

As text it would also take up to four times the memory.
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
    """What the string in `span` is in UTF-8."""
    if memoryview(span).nbytes <= TURN_BYTES:
        return string_in(span).encode()
    text = BytesIO()
    text.writelines(_contents(span))
    return text.getvalue()


def base64_in(span: msgspec.Raw) -> bytes:
    """What the string in `span` is the base64 of. Raises ValueError."""
    if memoryview(span).nbytes <= TURN_BYTES:
        return base64.b64decode(string_in(span), validate=True)
    data, rest, is_padded = BytesIO(), b"", False
    for part in _contents(span):
        if is_padded:
            raise ValueError("there is more behind the padding")
        coded = rest + part
        whole = len(coded) - len(coded) % _GROUP_CHARS
        data.write(base64.b64decode(coded[:whole], validate=True))
        rest, is_padded = coded[whole:], b"=" in coded[:whole]
    data.write(base64.b64decode(rest, validate=True))
    return data.getvalue()


def _contents(span: msgspec.Raw) -> Iterator[bytes]:
    view = memoryview(span)[1:-1]
    return (string_in(_QUOTE + part + _QUOTE).encode() for part in parts_with_whole_escapes(view))
