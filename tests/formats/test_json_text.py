"""Examine JSON text without decoding it, compared with slow and simple implementations."""

import json
import random
import re
import tracemalloc
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.formats.json_text import (
    REPLACEMENT,
    TURN_BYTES,
    check_utf8,
    copy_span,
    deeper_than,
    is_json,
    replace_lone_surrogates,
    truncated_at_depth,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('[]{}"\\a\ud83d\ude00\u2028é'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('[{"\\'), max_size=3), inner),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def is_json_by_the_library(text: bytes) -> bool:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        json.loads(text.decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True


# is_json


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b" [1 , 2]\n",
        b"null",
        b'"\\ud83d"',
        b'{"\\ud83d":"\\uDE00\\ud83d\\ude00"}',
        b'"\\\\ud83d"',
        b"1e400",
        b"9" * 5_000,
        b'{"a":1,"a":2}',
        '"\u2028😀"'.encode(),
        b"[" * 500 + b"]" * 500,
    ],
)
def test_json_is_what_the_grammar_allows(text: bytes) -> None:
    assert is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"{}{}",
        b"[1,]",
        b"{'a':1}",
        b"007",
        b"1.",
        b'"\n"',
        b'"\\x"',
        b'"\\ud8"',
        b'"\\ud83d',
        b'"\xff"',
        b'"\xed\xa0\xbd"',
        b"\xef\xbb\xbf{}",
        b"\xef\xbb\xbf",
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_other_text_is_not_json(text: bytes) -> None:
    assert not is_json(text)


@given(
    text=st.binary(max_size=12)
    | st.text(st.sampled_from('[]{}",:\\u8dDbEe0.-+ntrfalse \n'), max_size=14).map(str.encode)
)
@example(text=rb'"\\\ud83d"')
def test_is_json_agrees_with_the_standard_library(text: bytes) -> None:
    assert is_json(text) == is_json_by_the_library(text)


# replace_lone_surrogates


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uD83D\u0061"', rb'"\ufffd\u0061"'),
        (rb'"\uDe00"', rb'"\ufffd"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\\\\ud83d\\\\\ude00"', rb'"\\\\ud83d\\\\\ufffd"'),
        (rb'"\\ud83d\ude00"', rb'"\\ud83d\ufffd"'),
        (rb'"\n\ud83d"', rb'"\n\ufffd"'),
        (rb'"\udbff\udfff\ud800\udc00"', rb'"\udbff\udfff\ud800\udc00"'),
        (rb'"\ud7ff\ue000\u0d83"', rb'"\ud7ff\ue000\u0d83"'),
        (b"{}", b"{}"),
    ],
)
def test_only_lone_surrogates_are_replaced(text: bytes, harmless: bytes) -> None:
    assert replace_lone_surrogates(text) == harmless


@given(value=VALUES)
@example(value="\ud83d\ude00\ude00")
def test_all_other_text_keeps_its_offset(value: object) -> None:
    text = json.dumps(value)
    harmless = replace_lone_surrogates(text.encode())
    assert len(harmless) == len(text)
    paired = json.dumps(json.loads(text), ensure_ascii=False)
    assert json.loads(harmless) == json.loads(re.sub("[\ud800-\udfff]", "\ufffd", paired))
    assert len(REPLACEMENT) == len(r"\ud83d")


_OLD_WAY = re.compile(
    rb"(?P<before>(?<!\\)(?:\\\\)*+)"
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?P<low>\\u[dD][c-fC-F][0-9a-fA-F]{2})|[89a-fA-F][0-9a-fA-F]{2})"
)
ESCAPES = [rb"\ud83d", rb"\ude00", rb"\ud83d\ude00", rb"\\", rb"\u0041", rb"\n", b"d83d", "é".encode(), b"\\", b"x"]


def replaced_in_one_go(text: bytes) -> bytes:
    return _OLD_WAY.sub(lambda found: found[0] if found["low"] else found["before"] + REPLACEMENT, text)


@pytest.mark.parametrize("used", [ESCAPES, ESCAPES[:3], ESCAPES[:4], [rb"\ud83d\ude00"], [b"\\"]])
@pytest.mark.parametrize("seed", range(3))
def test_replacement_does_not_depend_on_the_ends_of_parts(used: list[bytes], seed: int) -> None:
    chosen = random.Random(seed).choices(used, k=30_000)
    for start in range(3):
        text = b"x" * start + b"".join(chosen)
        assert replace_lone_surrogates(text) == replaced_in_one_go(text)


@pytest.mark.parametrize("text", [rb"\ud83d" * 300_000, rb"\ud83dx" * 300_000, rb"\ud83d\\" * 300_000])
def test_millions_of_lone_surrogates_take_no_more_memory_than_the_text(text: bytes) -> None:
    tracemalloc.start()
    try:
        assert len(replace_lone_surrogates(text)) == len(text)
        assert tracemalloc.get_traced_memory()[1] < 1.3 * len(text) + 2_000_000
    finally:
        tracemalloc.stop()


# deeper_than


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
@given(value=VALUES, ascii_=st.booleans())
def test_depth_is_that_of_brackets_outside_strings(limit: int, value: object, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_).encode(errors="surrogatepass")
    assert deeper_than(limit, text) == (depth_of(value) > limit)


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        (b"[" * 600 + b"]" * 600, 600),
        (b'{"a":' * 600 + b"1" + b"}" * 600, 600),
        (b"[" + b"[]," * 200_000 + b"[[]]]", 3),
        (b'["' + b"[" * 200_000 + b'"]', 1),
        (b'["' + b'\\"[' * 50_000 + b'",[]]', 2),
        (b"[" + b'"]",[' * 300 + b"]" * 300 + b"]", 301),
        (b"[" + b'"[",' * 10_000 + b'"[",[[]]]', 3),
        (b'"' + b"[" * 2_000 + b'"', 0),
        (b"[]" + b" " * 2_000, 1),
    ],
)
def test_depth_is_found_in_texts_of_many_parts(text: bytes, depth: int) -> None:
    assert not deeper_than(depth, text)
    assert depth == 0 or deeper_than(depth - 1, text)


# truncated_at_depth


@given(value=VALUES, depth=st.integers(0, 4))
def test_a_text_truncated_at_a_depth_is_json(value: object, depth: int) -> None:
    text = json.dumps(value).encode()
    cut = truncated_at_depth(depth, text)
    if depth_of(value) <= depth:
        assert cut is None
    else:
        assert cut is not None
        assert depth_of(json.loads(cut)) == depth


def test_text_before_the_truncation_is_kept() -> None:
    text = b'{"a":"[[[","b":{"c":1,"d":[{"e":[[]]}]},"f":2}'
    assert truncated_at_depth(3, text) == b'{"a":"[[[","b":{"c":1,"d":[null]}}'


def test_the_search_for_a_depth_is_bounded() -> None:
    assert truncated_at_depth(8, b"[" + b"[]," * 100_000 + b"[" * 100) is None
    assert truncated_at_depth(8, b'["' + b"x" * 1_000_000 + b'",' + b"[" * 100) is not None


# Long texts, which are processed in parts


LONG = ("é" * TURN_BYTES).encode()


@pytest.mark.parametrize("before", [b"", b"x", b"xx"])
def test_valid_utf_8_passes_wherever_a_part_ends(before: bytes) -> None:
    check_utf8(before + LONG)


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", LONG[:-1], LONG + b"\xff", b"\xff" + LONG, LONG + b"\xc3", LONG[:TURN_BYTES] + b"\x80"]
)
def test_invalid_utf_8_is_found_anywhere(text: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        check_utf8(text)


@pytest.mark.parametrize("size", [0, 1, TURN_BYTES, TURN_BYTES + 1, 3 * TURN_BYTES - 1])
def test_a_copy_is_the_same_bytes(size: int) -> None:
    text = (LONG * 2)[:size]
    assert copy_span(msgspec.Raw(text)) == text
