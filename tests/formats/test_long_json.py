"""JSON that is checked while it arrives: it gives the verdict of a check in one piece, wherever the text is cut."""

import json
import random
import re

import pytest

from bridge.formats import long_json
from bridge.formats.json_parse import parse
from bridge.formats.json_text import is_json
from bridge.formats.long_json import LongJson

STRINGS = ["", "a", '\\"é', "x" * 30, "😀" * 5, "[{,}]", "\ud83d", "a\\", "\ud83d\\" * 20, 'ab\\\\"😀é' * 20]
BYTES = b'[]{},:"\\ 0e-u1\x01\xe9dn\xc3'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits at which short texts take every path of long ones."""
    monkeypatch.setattr(long_json, "_OPEN_STRING_BYTES", 8)
    monkeypatch.setattr(long_json, "_BEGINNING", re.compile(b""))


def finish(text: bytes, size: int) -> bytes | None:
    checked = LongJson()
    for start in range(0, len(text), size):
        checked.feed(text[start : start + size])
    return checked.finish()


def value(draw: random.Random, depth: int = 0) -> object:
    kind = draw.random()
    if depth > 4 or kind < 0.3:
        return draw.choice([1, -2.5e10, True, None, *STRINGS])
    if kind < 0.65:
        return [value(draw, depth + 1) for _ in range(draw.randrange(5))]
    return {draw.choice(STRINGS) + str(at): value(draw, depth + 1) for at in range(draw.randrange(5))}


def damaged(draw: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(changed) + 1)
        changed[at : at + draw.randrange(2)] = bytes(draw.choices(BYTES, k=draw.randrange(2)))
    return bytes(changed)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(10))
def test_a_text_in_blocks_is_judged_as_in_one_piece(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        text = json.dumps(value(draw), indent=draw.choice([None, 2])).encode()
        if draw.random() < 0.5:
            text = text.replace(rb"\u00e9", "é".encode()).replace(rb"\ud83d\ude00", "😀".encode())
        text = damaged(draw, text)
        short = finish(text, draw.choice([1, 3, 20, 100]))
        assert (short is not None) is is_json(text), text
        assert short is None or is_json(short), text


@pytest.mark.parametrize(
    "text", [b"[1,]", b"[,1]", b'{"a":1,}', b'{,"a":1}', b"[1,2", b"1,2", b"[1}", b'{"a",1}', b"[1],[2]", b"", b"[1 2]"]
)
def test_a_text_that_is_wrong_at_a_comma_is_no_json(text: bytes) -> None:
    assert finish(text, 1) is None


def test_the_short_version_keeps_all_but_the_rest_of_long_strings() -> None:
    text = b'{"a":"%b","finish_reason":"stop","error":{"message":"%b"}}' % (b"y" * 500_000, "ü".encode() * 90_000)
    short = finish(text, 65_536)
    assert short is not None
    assert len(short) < 5000
    read = parse(short)
    assert read["finish_reason"] == "stop"
    assert read["a"].strip("y") == ""
    assert read["error"]["message"].startswith("ü")


def test_a_text_of_too_many_values_is_read_up_to_its_first_container() -> None:
    text = b'{"type":"big","values":[%b1]}' % (b"[]," * 600_000)
    assert parse(finish(text, 65_536) or b"") == {"type": "big", "values": None}


def test_a_list_of_numbers_leaves_room_for_the_counts_behind_it() -> None:
    vector = b'{"object":"embedding","index":7,"embedding":[%b0.5]}' % (b"-0.0123e-5,\n " * 1536)
    text = b'{"object":"list","data":[%b],"usage":{"prompt_tokens":9}}' % b",".join([vector] * 400)
    read = parse(finish(text, 65_536) or b"")
    assert read["usage"] == {"prompt_tokens": 9}
    assert [(each["object"], each["index"]) for each in read["data"]] == [("embedding", 7)] * 400


def test_numbers_inside_a_string_are_kept() -> None:
    numbers = ",".join(map(str, range(200)))
    text = b'{"v":[%b1],"message":"%b"}' % (b"1," * 100_000, numbers.encode())
    assert parse(finish(text, 65_536) or b"")["message"] == numbers


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (b'{"type":"big","values":[%b1],"usage":{"input_tokens":3}}', {"usage": {"input_tokens": 3}}),
        (b'{"type":"big","response":{"values":[%b1],"usage":{"a":3}}}', {"response": {"usage": {"a": 3}}}),
    ],
)
def test_a_text_of_too_many_values_is_read_for_the_counts_at_its_end(text: bytes, counts: dict[str, object]) -> None:
    read = parse(finish(text % (b"{}," * 600_000), 65_536) or b"")
    assert read["type"] == "big"
    assert read | counts == read
