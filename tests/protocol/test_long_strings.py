"""Long strings of a message: decoding in parts gives the same result as decoding at once."""

import base64
import json
import random

import msgspec
import orjson
import pytest

from bridge.formats import json_text
from bridge.formats.json_text import TURN_BYTES
from bridge.protocol import long_strings
from bridge.protocol.long_strings import base64_in, utf8_in

PIECES = ["a", "d83d", "\\", '"', "\n", "é", "\u2028", "😀", "u", "/"]


def span_of(text: bytes) -> msgspec.Raw:
    return msgspec.json.decode(text, type=msgspec.Raw)


@pytest.mark.parametrize("pieces", [PIECES, ["😀"], ["é"], ["\\"], ["d"], ["\\", "u", "d83d"]])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_text_equals_the_result_of_one_call(pieces: list[str], ascii_only: bool) -> None:
    text = "".join(random.Random(1).choices(pieces, k=TURN_BYTES))
    for start in range(4):
        value = "x" * start + text
        written = msgspec.json.encode(value) if not ascii_only else _escaped(value)
        assert utf8_in(span_of(written)) == value.encode()


def _escaped(value: str) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 2_000_000, 2_000_001, 2_000_002])
def test_long_base64_equals_the_result_of_one_call(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert base64_in(span_of(orjson.dumps(base64.b64encode(data).decode()))) == data


@pytest.mark.parametrize("wrong", ["A", "AA", "AAA", "AA==A", "AA==AAAA", "A!AA", "é", "====", "AAAA\n"])
@pytest.mark.parametrize("before", ["", "AAAA" * 500_000])
def test_invalid_base64_is_rejected_at_any_position(wrong: str, before: str) -> None:
    with pytest.raises(ValueError):
        base64_in(span_of(orjson.dumps(before + wrong)))


@pytest.mark.parametrize("padding", ["AA==", "AAA="])
def test_characters_after_the_padding_are_rejected(padding: str) -> None:
    with pytest.raises(ValueError):
        base64_in(span_of(orjson.dumps(padding + "AAAA" * 500_000)))


def test_no_call_decodes_more_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    string_in = long_strings.string_in

    def counting(text: bytes) -> str:
        decoded.append(len(text))
        return string_in(text)

    monkeypatch.setattr(long_strings, "string_in", counting)
    utf8_in(span_of(b'"' + b"a" * 5_000_000 + b'"'))
    utf8_in(span_of(b'"' + rb"\ud83d\ude00" * 500_000 + b'"'))
    base64_in(span_of(b'"' + b"abcd" * 1_250_000 + b'"'))
    assert sum(decoded) > 15_000_000
    assert max(decoded) <= TURN_BYTES
    assert max(decoded) <= 2 * json_text._PART_BYTES + 2
