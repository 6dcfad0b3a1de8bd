"""Parse JSON from providers: strict, except for the lone surrogates that the grammar allows."""

import json
from typing import Any, Final, NoReturn

import msgspec

MAX_PARTS: Final = 500_000
"""Bound on the values of a long text that is decoded. Each value takes up to a hundred times its length in memory."""
_SHORT_BYTES: Final = 1 << 20

_decode = msgspec.json.Decoder().decode


def parse(text: bytes) -> Any:
    """Return the value of one JSON text in UTF-8.

    Text that msgspec rejects is tried once with the standard library, which accepts lone surrogate escapes and numbers
    of any size. Raise ValueError if it is not JSON or not UTF-8, RecursionError if it nests too deep.
    """
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return json.loads(text.decode(), parse_constant=_refuse, parse_int=_number)


def has_many_parts(text: bytes) -> bool:
    """Return True if a text may hold more than MAX_PARTS values, so that it must not be decoded.

    Counts the characters before values, also in strings: an upper bound, at the speed of memchr.
    """
    if len(text) <= _SHORT_BYTES:
        return False
    return text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_PARTS


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _number(digits: str) -> int | float:
    """Return an integer, or infinity if it has more digits (4,300) than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
