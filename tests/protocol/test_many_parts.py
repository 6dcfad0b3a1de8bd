"""Provider data may hold millions of values: it is read without creating an object for each."""

import tracemalloc
from collections.abc import Callable

import pytest

from bridge.formats.item import Item, ItemKind
from bridge.formats.json_parse import MAX_PARTS, has_many_parts
from bridge.formats.realtime_usage import turn_in
from bridge.formats.stream_reader import Mark, StreamReader, parse_response

COUNT = MAX_PARTS + 200_000
OBJECTS = b"[" + b"{}," * COUNT + b"{}]"
MEMBERS = b",".join(b'"%07d":1' % each for each in range(COUNT))


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BODIES = {
    "a list": OBJECTS,
    "members": b"{" + MEMBERS + b"}",
    "choices": b'{"choices":' + OBJECTS + b',"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    "usage": b'{"usage":{' + MEMBERS + b"}}",
    "an error": b'{"error":' + OBJECTS + b"}",
    "a type": b'{"type":' + OBJECTS + b"}",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("status", [200, 400])
def test_parsing_an_answer_takes_little_more_memory_than_its_length(name: str, status: int) -> None:
    body = BODIES[name]
    assert has_many_parts(body)
    assert peak_of(lambda: parse_response(status, body, "application/json", from_model=True)) < 3 * len(body)


@pytest.mark.parametrize("name", BODIES)
def test_parsing_an_item_takes_little_more_memory_than_its_length(name: str) -> None:
    body = BODIES[name]
    assert peak_of(lambda: StreamReader().read(Item(body))) < 3 * len(body)


def test_usage_is_read_after_millions_of_values() -> None:
    usage = parse_response(200, BODIES["choices"], "application/json", from_model=True).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (1, 2)


def test_a_large_item_is_classified_by_its_type_and_stays_json() -> None:
    reader = StreamReader()
    reader.read(Item(b'{"type":"response.created","response":{}}', event="response.created"))
    item = Item(b'{"type":"response.completed","response":{"output":' + OBJECTS + b"}}", event="response.completed")
    assert reader.read(item) is Mark.CLOSING
    assert item.kind is ItemKind.JSON


def test_a_large_item_that_is_not_json_is_malformed() -> None:
    item = Item(OBJECTS[:-1])
    StreamReader().read(item)
    assert item.kind is ItemKind.MALFORMED


def test_parsing_a_realtime_message_takes_little_more_memory_than_its_length() -> None:
    data = b'{"type":"response.done","x":' + OBJECTS + b',"response":{"usage":{"input_tokens":1}}}'
    assert peak_of(lambda: turn_in(data)) < len(data)
