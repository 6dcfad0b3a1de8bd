"""JSON as providers write it, taken apart: strict, but for the lone surrogates that the grammar allows."""

import json
from typing import Any, Final, NoReturn

import msgspec

MAX_PARTS: Final = 500_000
"""Of a long text that is decoded to objects. Each part takes up to a hundred times its length in memory."""
_SHORT_BYTES: Final = 1 << 20

_decode = msgspec.json.Decoder().decode


def parse(text: bytes) -> Any:
    """The value of one JSON text in UTF-8.

    What msgspec refuses the standard library is asked once: it takes lone surrogate escapes and numbers of any size.
    Raises ValueError for what is no JSON or no UTF-8, RecursionError for what nests too deep.
    """
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return json.loads(text.decode(), parse_constant=_refuse, parse_int=_number)


def has_many_parts(text: bytes) -> bool:
    """Whether a text may hold more than MAX_PARTS values, so that it must not be decoded to objects.

    Counts what stands before a value, in strings too: a bound, found at the speed of memchr.
    """
    if len(text) <= _SHORT_BYTES:
        return False
    return text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_PARTS


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _number(digits: str) -> int | float:
    """An integer; one of more digits than Python converts (4,300) is infinite for our purposes."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
