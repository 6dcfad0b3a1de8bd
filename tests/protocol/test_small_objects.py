"""Objects of a message that should be small: oversized ones cost no more to read."""

import tracemalloc

import msgspec
import orjson
import pytest

from bridge.errors import BadField, TooLarge
from bridge.protocol.messages import Create, MessageLimits, RejectedMessage, parse
from bridge.protocol.small_objects import MAX_MEMBERS, small_object
from bridge.settings.step import StepSettings


def span_of(text: bytes) -> msgspec.Raw:
    return msgspec.json.decode(text, type=msgspec.Raw)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b'{"a":1,"b":"x","c":true,"d":null,"e":1.5}', {"a": 1, "b": "x", "c": True, "d": None, "e": 1.5}),
        (b'{"a":{"b":[1,2]},"c":[{"d":1}],"e":7}', {"a": {}, "c": [], "e": 7}),
        (b'{"a,]}":"{[,","b\\"":"\\\\"}', {"a,]}": "{[,", 'b"': "\\"}),
    ],
)
def test_a_small_object_is_read_whole(text: bytes, value: object) -> None:
    assert small_object(span_of(text), "x") == value


def test_the_first_members_of_a_large_object_are_read() -> None:
    value = {f"k{each}": [each, {"x": each}] if each % 2 else each for each in range(2_000)}
    found = small_object(span_of(orjson.dumps(value)), "x")
    assert list(found) == list(value)[:MAX_MEMBERS]


def test_an_object_whose_first_members_are_hard_to_find_is_rejected() -> None:
    text = b'{"a":[' + b"[]," * 100_000 + b"1]}"
    with pytest.raises(TooLarge, match=r"^request\.config\.metadata: "):
        small_object(span_of(text), "request.config.metadata")


def test_a_number_out_of_range_is_a_bad_field() -> None:
    with pytest.raises(BadField, match=r"^x: "):
        small_object(span_of(b'{"a":1e999}'), "x")


MEMBERS = 300_000


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("wire", ["metadata", "customCost", "maxAttempts", "unknown"])
@pytest.mark.parametrize("nested", [False, True])
def test_millions_of_entries_in_a_config_take_no_extra_memory(wire: str, nested: bool, levels: int) -> None:
    entries = b"{" + b",".join(b'"k%d":%d' % (each, each) for each in range(MEMBERS)) + b"}"
    value = b'{"a":' + entries + b"}" if nested else entries
    step = b'{"provider":"openai","endpoint":"x","query":{},"config":{"%b":%b}}' % (wire.encode(), value)
    data = b'{"type":"universal.create","request":[' + b",".join([step] * levels) + b"]}"
    tracemalloc.start()
    try:
        parsed = parse(data, StepSettings(), MessageLimits())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(value) + 2_000_000
    if wire == "metadata" and not nested:
        assert isinstance(parsed, Create)
        assert parsed.steps[0].settings.metadata == {f"k{each}": each for each in range(5)}
        assert "metadata" in parsed.warnings[0]
    elif wire != "unknown":
        assert isinstance(parsed, RejectedMessage)
        assert wire in str(parsed.error)
