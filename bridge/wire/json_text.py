"""What must be known of a JSON text without taking it apart: is it any, how deep it nests, do its escapes pair up."""

import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate, islice
from typing import Final

import msgspec

_skim = msgspec.json.Decoder(msgspec.Raw).decode

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
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

_SURROGATES: Final = re.compile(
    rb"""
    (?P<before> (?<!\\) (?:\\\\)*+ )            # a backslash that is itself escaped begins no escape
    \\u[dD] (?: [89abAB][0-9a-fA-F]{2} (?P<low> \\u[dD][c-fC-F][0-9a-fA-F]{2} )
              | [89a-fA-F][0-9a-fA-F]{2} )
    """,
    re.VERBOSE,
)
HARMLESS: Final = rb"\ufffd"
"""What stands for a lone surrogate's escape; as long as that."""


def is_json(text: bytes) -> bool:
    """Whether `text` is one JSON value in UTF-8. Lone surrogate escapes are JSON, NaN and a byte order mark are not.

    What nests deeper than about a thousand levels is not looked into, and counts as none.
    """
    try:
        check_utf8(text)  # msgspec does not look at what it skips
        return _is_skimmed(text) or _is_skimmed(without_lone_surrogates(text))
    except (UnicodeDecodeError, RecursionError):
        return False


def check_utf8(text: bytes) -> None:
    """Raises UnicodeDecodeError. A long text is looked at in parts, so that a thread doing it lets others run."""
    if text.isascii():
        return
    if len(text) <= TURN_BYTES:
        text.decode()
        return
    decode = _utf8_decoder().decode
    for part in _parts(text):
        decode(part)
    decode(b"", True)


def copied(span: msgspec.Raw) -> bytes:
    """The bytes of a span; long ones in parts, as above."""
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


def without_lone_surrogates(text: bytes) -> bytes:
    """`text` with HARMLESS for every lone surrogate's escape, so that all else keeps its place.

    JavaScript writes half an emoji as such an escape, `\\ud83d`: right by the grammar of JSON (RFC 8259, section 8.2),
    refused by msgspec.
    """
    return _SURROGATES.sub(_harmless, text)


def _harmless(found: re.Match[bytes]) -> bytes:
    return found[0] if found["low"] else found["before"] + HARMLESS


def deeper_than(limit: int, text: bytes) -> bool:
    """Whether `text`, which is known to be JSON, nests deeper than `limit`.

    Nearly every message is answered by counting its brackets, at the speed of memchr. The rest is done in parts, so
    that a thread doing it for a large message lets others run.
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
    """The brackets of `text` outside its strings as +1 and -1, in parts."""
    at = 0
    while at < len(text):
        strings = _SOME_STRINGS.match(text, at)
        end = strings.end() if strings else len(text)
        signs = _STRINGS.sub(b"", text[at:end]).translate(_SIGNS, _NOT_BRACKETS)
        for start in range(0, len(signs), _PART_BYTES):
            yield memoryview(signs[start : start + _PART_BYTES]).cast("b")
        at = end


def closed_above(depth: int, text: bytes) -> bytes | None:
    """`text` up to the first place that nests deeper than `depth`, with null there and all that is open closed.

    None if it comes to no such place soon. What it gives is JSON if `text` was, up to there.
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
