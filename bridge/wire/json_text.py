"""What must be known of a JSON text without taking it apart: how deep it nests, and whether its escapes pair up."""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import NoReturn

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SOME_STRINGS = re.compile(rb'(?:[^"]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"){1,4096}', re.DOTALL)
_SIGNS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level up, one level down
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_PART_BYTES = 1 << 16


def deeper_than(limit: int, text: bytes) -> bool:
    """Whether the JSON `text` nests deeper than `limit`.

    Nearly every message is answered by counting its brackets, at the speed of memchr. The rest is done in parts, so
    that a thread doing it for a large message lets others run.
    """
    if text.count(b"[") + text.count(b"{") <= limit:
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
        signs = _STRING.sub(b"", text[at:end]).translate(_SIGNS, _NOT_BRACKETS)
        for start in range(0, len(signs), _PART_BYTES):
            yield memoryview(signs[start : start + _PART_BYTES]).cast("b")
        at = end


def without_lone_surrogates(text: bytes) -> bytes | None:
    """`text` with every surrogate escape made harmless, byte for byte as long; None if it is no JSON even so.

    JavaScript writes half an emoji as a lone escape such as `\\ud83d`: right by the grammar of JSON, refused by
    msgspec. The replacement keeps every position, so that spans found in the copy hold in the original.
    """
    repaired = _SURROGATE_ESCAPE.sub(rb"\\ufffd", text)
    return repaired if repaired != text and is_json(repaired) else None


def is_json(text: bytes) -> bool:
    """Whether `text` is one JSON value in UTF-8; lone surrogate escapes are allowed, NaN and Infinity are not."""
    try:
        json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
