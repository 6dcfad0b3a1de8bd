"""Read the fields of a request body that the bridge needs, above all its model. Pure.

A body is read as tolerantly as providers read it: prices, budgets, circuit breakers and the log depend on what a
provider sees. So byte order marks, UTF-16, UTF-32, lone surrogates, NaN and Infinity are accepted, and forms besides
JSON.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from bridge.formats.json_spans import ABSENT, JsonType, string_in, type_of
from bridge.formats.json_text import replace_lone_surrogates

T = TypeVar("T")

MAX_TOLERANT_BYTES: Final = 4 << 20
"""Longer text is read only if it is in UTF-8: recoding it would block the event loop."""
MAX_REWRITTEN_BYTES: Final = 1 << 17
"""Longer text is not searched for NaN and Infinity, which is some hundred times slower."""
MAX_CONSTANTS: Final = 10_000
"""Bound on NaN and Infinity in one text."""
MAX_FORM_FIELDS: Final = 1000
"""Bound on the fields of a form."""
_PART_HEAD_BYTES: Final = 8192
_VALUE_BYTES: Final = 1024
"""Longer values are not the name of a model."""

_MULTIPART: Final = "multipart/form-data"
_URLENCODED: Final = "application/x-www-form-urlencoded"


def model_in(body: bytes, content_type: str = "") -> str | None:
    """Return the model that the body names; None if it names none, or two different ones. Never raises.

    `body` has no content coding; `content_type` is the whole value of the header.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    found = None
    if media_type == _MULTIPART:
        found = _model_of(_multipart_fields(body, content_type))
    elif media_type == _URLENCODED:
        found = _model_of(_urlencoded_fields(body))
    return found or _model_in_json(body)


# JSON.


def read_json(body: bytes, decode: Callable[[bytes], T]) -> T | None:
    """Return the result of `decode`, a msgspec decoder, for the text; None if it is not JSON, even read tolerantly."""
    try:
        for text in _decodings(body):
            try:
                return decode(text)
            except msgspec.ValidationError:
                return None
            except msgspec.DecodeError:
                continue  # the next decoding is more tolerant
    except (UnicodeError, RecursionError):
        pass
    return None


def to_utf8(body: bytes) -> bytes:
    """Return the JSON text in UTF-8, without a byte order mark (RFC 8259, section 8.1).

    Raise UnicodeError if it is invalid.
    """
    encoding = json.detect_encoding(body[:4])
    if encoding == "utf-8":
        return body
    if encoding == "utf-8-sig":
        return body[3:]
    return body.decode(encoding).encode("utf-8", "surrogatepass") if len(body) <= MAX_TOLERANT_BYTES else body


def replace_invalid(text: bytes) -> bytes:
    """Return `text` with NaN, Infinity and lone surrogates replaced; all offsets stay the same."""
    return _without_constants(replace_lone_surrogates(text))


def _decodings(body: bytes) -> Iterator[bytes]:
    """Yield the text as it is, then as more tolerant parsers read it."""
    text = to_utf8(body)
    yield text
    if (replaced := replace_lone_surrogates(text)) != text:
        yield replaced
    if (without := _without_constants(replaced)) != replaced:
        yield without


_CONSTANT: Final = re.compile(
    rb"""
    (?: [^"NI]++ | "[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z) | (?!NaN)N | (?!Infinity)I )*
    (NaN|Infinity)
    """,
    re.VERBOSE | re.DOTALL,
)


def _without_constants(text: bytes) -> bytes:
    """Return `text` with a number of equal length for each NaN and Infinity outside strings."""
    if len(text) > MAX_REWRITTEN_BYTES or not (b"NaN" in text or b"Infinity" in text):
        return text
    rewritten = bytearray(text)
    end = 0
    for _ in range(MAX_CONSTANTS):
        found = _CONSTANT.match(text, end)
        if found is None:
            break
        start, end = found.span(1)
        rewritten[start:end] = b"0".ljust(end - start)
    return bytes(rewritten)


_OBJECT: Final = re.compile(rb"[ \t\r\n\x00\xfe\xff\xef\xbb\xbf]*+\{")
"""Beginning of an object in any encoding. Other bodies, such as audio, are not worth the tolerant attempts."""
_LOOKED_AT_BYTES: Final = 1 << 16

_EXACT: Final = "model"
_SPELLINGS: Final = tuple("".join(letters) for letters in product(*((letter, letter.upper()) for letter in _EXACT)))
"""The name in every case, because servers in Go ignore the case of names. The first is the exact one."""
_OTHER_NAME: Final = "model_id"
"""The name that ElevenLabs and Cartesia use."""
_Named = msgspec.defstruct("Named", [(name, msgspec.Raw, ABSENT) for name in (*_SPELLINGS, _OTHER_NAME)])
_named: Final = msgspec.json.Decoder(_Named)


def _model_in_json(body: bytes) -> str | None:
    named = read_json(body, _named.decode) if _OBJECT.match(body, 0, _LOOKED_AT_BYTES) else None
    if named is None:
        return None
    *spellings, other = msgspec.structs.astuple(named)
    found = {text for span in spellings if span is not ABSENT and (text := _text(span))}
    if len(found) > 1:
        return None  # the provider uses one of them, but it is unknown which
    return next(iter(found), None) or _text(other)


def _text(span: msgspec.Raw) -> str | None:
    try:
        return string_in(span) if type_of(span) is JsonType.STRING else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# Forms.


def _model_of(fields: Iterable[tuple[str, str]]) -> str | None:
    found: dict[str, set[str]] = {_EXACT: set(), _OTHER_NAME: set()}
    for name, value in fields:
        if name in found and value:
            found[name].add(value)
    exact = found[_EXACT] or found[_OTHER_NAME]
    return next(iter(exact)) if len(exact) == 1 else None


def _urlencoded_fields(body: bytes) -> list[tuple[str, str]]:
    if len(body) > MAX_TOLERANT_BYTES:
        return []
    try:
        return parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        return []


_BOUNDARY: Final = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_NAME: Final = re.compile(
    rb'(?:^|[\r\n])content-disposition:[^\r\n]*?;[ \t]*name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE
)


def _multipart_fields(body: bytes, content_type: str) -> Iterator[tuple[str, str]]:
    """Yield the short fields of a form (RFC 7578)."""
    boundary = _BOUNDARY.search(content_type[:1024])
    if boundary is None:
        return
    mark = b"--" + (boundary[1] or boundary[2]).encode()
    at = body.find(mark)
    for _ in range(MAX_FORM_FIELDS):
        if at < 0:
            return
        head_at = at + len(mark)
        at = body.find(b"\n" + mark, head_at)
        if field := _field_in(body, head_at, at if at >= 0 else len(body)):
            yield field
        at = at + 1 if at >= 0 else at


def _field_in(body: bytes, start: int, end: int) -> tuple[str, str] | None:
    """Return the part between two boundaries if it is a field of the form and short enough."""
    head_end = body.find(b"\r\n\r\n", start, min(end, start + _PART_HEAD_BYTES))
    if head_end < 0 or end - head_end > _VALUE_BYTES:
        return None
    name = _NAME.search(body[start:head_end])
    if name is None:
        return None
    value = body[head_end + 4 : end].removesuffix(b"\r")
    return (name[1] or name[2] or b"").decode("utf-8", "replace"), value.decode("utf-8", "replace").strip()
