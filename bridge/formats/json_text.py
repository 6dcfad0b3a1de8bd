"""Examine JSON text without decoding it: validity, depth of nesting, and lone surrogates."""

import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate, islice
from typing import Final

import msgspec

_skim = msgspec.json.Decoder(msgspec.Raw).decode

_STRING: Final = rb'"[^"\\]*+(?:\\.?+[^"\\]*+)*+(?:"|\Z)'
"""A string without an end extends to the end of the text, so that its quotation marks are not searched again."""
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_SOME_STRINGS: Final = re.compile(rb'(?:[^"]*+%b){1,4096}' % _STRING, re.DOTALL)
_STRINGS_AND_BRACKETS: Final = re.compile(rb"%b|[\[\]{}]" % _STRING, re.DOTALL)

_SIGNS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level up, one level down
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_CLOSERS: Final = {ord("["): b"]", ord("{"): b"}"}
_PART_BYTES: Final = 1 << 16
TURN_BYTES: Final = 1 << 20
_utf8_decoder: Final = codecs.getincrementaldecoder("utf-8")
_HEAD_TOKENS: Final = 1 << 16

_HIGH: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATES: Final = re.compile(rb"(?<!%b)%b|%b(?!%b)" % (_HIGH, _LOW, _HIGH, _LOW))
"""For text in which every backslash begins an escape."""
_ESCAPED_BACKSLASH: Final = rb"\\"
_STAND_IN: Final = b"\xff\xff"
"""Temporary replacement of an escaped backslash: these bytes never occur in UTF-8."""
_END_OF_NO_ESCAPE: Final = re.compile(rb".*[^\\u0-9a-fA-F\x80-\xff]", re.DOTALL)
_WHOLE_ESCAPES: Final = re.compile(
    rb"(?:%b%b|\\u[0-9a-fA-F]{4}|\\.|[^\\\x80-\xff]{1,16}+|[\xc0-\xff][\x80-\xbf]{0,3}+){1,4096}+" % (_HIGH, _LOW),
    re.DOTALL,
)
_LOOK_BACK_BYTES: Final = 64
REPLACEMENT: Final = rb"\ufffd"
"""The escape that replaces that of a lone surrogate; it has the same length."""


def is_json(text: bytes) -> bool:
    """Return True if `text` is one JSON value in UTF-8.

    Lone surrogate escapes are valid, NaN and a byte order mark are not.

    Text that nests deeper than about a thousand levels is not examined and counts as invalid.
    """
    try:
        check_utf8(text)  # msgspec does not check the members that it skips
        return _is_skimmed(text) or _is_skimmed(replace_lone_surrogates(text))
    except (UnicodeDecodeError, RecursionError):
        return False


def check_utf8(text: bytes) -> None:
    """Raise UnicodeDecodeError if the text is not UTF-8.

    A long text is checked in parts, so that other threads can run in between.
    """
    if text.isascii():
        return
    if len(text) <= TURN_BYTES:
        text.decode()
        return
    decode = _utf8_decoder().decode
    for part in _parts(text):
        decode(part)
    decode(b"", True)


def copy_span(span: msgspec.Raw) -> bytes:
    """Return the bytes of a span; long ones are copied in parts, as above."""
    view = memoryview(span)
    if len(view) <= TURN_BYTES:
        return bytes(view)
    copy = BytesIO()
    copy.writelines(_parts(view))
    return copy.getvalue()


def _parts(text: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(text)
    return (view[start : start + TURN_BYTES] for start in range(0, len(view), TURN_BYTES))


def _is_skimmed(text: bytes) -> bool:
    try:
        _skim(text)
    except msgspec.DecodeError:
        return False
    return True


def replace_lone_surrogates(text: bytes) -> bytes:
    r"""Return `text`, which is UTF-8, with REPLACEMENT for every lone surrogate escape; all offsets stay the same.

    JavaScript writes half an emoji as such an escape, `\ud83d`: valid by the grammar of JSON (RFC 8259, section 8.2),
    but rejected by msgspec. The text is processed in parts, so the memory is that of the result.
    """
    if b"\\u" not in text:
        return text
    harmless = BytesIO()
    harmless.writelines(map(_replace_in_part, parts_with_whole_escapes(text)))
    return harmless.getvalue()


def _replace_in_part(part: bytes) -> bytes:
    if b"\\u" not in part:
        return part
    shown = part.replace(_ESCAPED_BACKSLASH, _STAND_IN)
    return _LONE_SURROGATES.sub(rb"\\ufffd", shown).replace(_STAND_IN, _ESCAPED_BACKSLASH)


def parts_with_whole_escapes(text: bytes | memoryview) -> Iterator[bytes]:
    """Yield `text`, which is UTF-8, in parts that never split an escape, a character or a surrogate pair."""
    at = 0
    while at < len(text):
        end = at + _PART_BYTES
        if end < len(text):
            end = _safe_end(text, at, end)
        yield bytes(text[at:end])
        at = end


def _safe_end(text: bytes | memoryview, at: int, end: int) -> int:
    # Only \uXXXX is longer than two bytes, so no escape continues after any other byte than these.
    if found := _END_OF_NO_ESCAPE.match(text, end - _LOOK_BACK_BYTES, end):
        return found.end()
    found = _WHOLE_ESCAPES.match(text, at)
    return found.end() if found else len(text)


def deeper_than(limit: int, text: bytes) -> bool:
    """Return True if `text`, which must be JSON, nests deeper than `limit`.

    For nearly every message a count of its brackets suffices, at the speed of memchr. Otherwise the text is processed
    in parts, so that other threads can run in between.
    """
    if len(text) <= 2 * limit or text.count(b"[") + text.count(b"{") <= limit:
        return False
    depth = 0
    for part in _signs(text):
        if max(accumulate(part, initial=depth)) > limit:
            return True
        depth += sum(part)
    return False


def _signs(text: bytes) -> Iterator[memoryview]:
    """Yield the brackets of `text` outside its strings as +1 and -1, in parts."""
    at = 0
    while at < len(text):
        strings = _SOME_STRINGS.match(text, at)
        end = strings.end() if strings else len(text)
        signs = _STRINGS.sub(b"", text[at:end]).translate(_SIGNS, _NOT_BRACKETS)
        for start in range(0, len(signs), _PART_BYTES):
            yield memoryview(signs[start : start + _PART_BYTES]).cast("b")
        at = end


def truncated_at_depth(depth: int, text: bytes) -> bytes | None:
    """Return `text` up to the first value that nests deeper than `depth`, with null there and all brackets closed.

    Return None if there is no such value near the beginning. The result is JSON if the text was valid up to there.
    """
    closers: list[bytes] = []
    for token in islice(_STRINGS_AND_BRACKETS.finditer(text), _HEAD_TOKENS):
        at = token.start()
        if closer := _CLOSERS.get(text[at]):
            if len(closers) == depth:
                return b"".join((text[:at], b"null", *reversed(closers)))
            closers.append(closer)
        elif text[at] in b"]}" and closers:
            closers.pop()
    return None
