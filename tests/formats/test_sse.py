"""The SSE decoder, compared with the standard and with the extensions of providers."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.formats.buffer import kind_of
from bridge.formats.decoders import Shape
from bridge.formats.item import Item, ItemKind
from bridge.formats.sse import SseDecoder
from tests.support.decoding import LIMIT, cut_at, decode, pending_everywhere

LINES = st.sampled_from(
    [
        b"",
        b":",
        b": comment",
        b"data",
        b"data:",
        b"data: ",
        b"data:  5",
        b'data: {"n":1}',
        b'data:{"n":2}',
        b"data: [DONE]",
        b"data: \xe2\x80\xa8\xc2\x85\x0b\x0c",
        b"event",
        b"event: delta",
        b"event:error",
        b"id",
        b"id: 7",
        b"id: a\0b",
        b"retry: 10",
        b"unknown: x",
        b"Data: x",
        b" data: x",
    ]
)
LINE_ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
BODIES = st.builds(
    lambda bom, lines: bom + b"".join(line + end for line, end in lines),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, LINE_ENDS)),
)


def by_the_standard(body: bytes) -> list[Item]:
    """Return the events of a complete body by HTML, 9.2.6. An event's id is returned only if its own block sets it.

    Beyond the standard, an event `error` needs no data.
    """
    items = []
    data, event, id_ = b"", b"", None
    *lines, _ = re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        if not line:
            if data or event == b"error":
                value = data.removesuffix(b"\n")
                items.append(Item(value, kind_of(value), event.decode() or None, id_))
            data, event, id_ = b"", b"", None
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            event = value
        elif field == b"id" and b"\0" not in value:
            id_ = value.decode()
    return items


@given(body=BODIES, data=st.data())
@example(body=b"data: 1\r\n\r\n\ndata: 2\n\r\n", data=None)
def test_complete_events_are_those_of_the_standard_with_any_split(body: bytes, data: st.DataObject | None) -> None:
    places = data.draw(st.lists(st.integers(0, len(body)))) if data else range(len(body))
    decoder = SseDecoder(LIMIT)
    items = [item for read in cut_at(body, places) for item in decoder.feed(read)]
    assert items == by_the_standard(body)


@given(body=BODIES)
def test_the_bytes_that_are_not_pending_end_with_a_block(body: bytes) -> None:
    assert len(pending_everywhere(Shape.SSE, body)) == len(body)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r", b"\r\r", b"\n\r", b"\r\n\n"])
def test_an_event_is_returned_with_the_first_byte_that_can_end_it(end: bytes) -> None:
    decoder = SseDecoder(LIMIT)
    assert decoder.feed(b"data: {}" + end[:-1]) == []
    assert decoder.feed(end[-1:]) == [Item(b"{}")]
    assert decoder.pending_bytes == 0


def test_the_line_feed_of_a_split_crlf_belongs_to_the_event_before_it() -> None:
    decoder = SseDecoder(LIMIT)
    assert decoder.feed(b"data: 1\r\n\r") == [Item(b"1", ItemKind.TEXT)]
    assert decoder.feed(b"\n") == []
    assert decoder.pending_bytes == 0
    assert decoder.feed(b"data: 2\r\n\r\n") == [Item(b"2", ItemKind.TEXT)]


def test_only_one_byte_order_mark_is_removed() -> None:
    body = b"\xef\xbb\xbf" * 2 + b"data: lost\n\ndata: kept\n\n"
    assert decode(Shape.SSE, [body])[0] == [Item(b"kept", ItemKind.TEXT)]


@pytest.mark.parametrize(
    ("left", "item"),
    [
        (b'data: {"n":1}', Item(b'{"n":1}')),
        (b'event: x\r\nid: 3\r\ndata: {"n":1}\r\n', Item(b'{"n":1}', event="x", id="3")),
        (b'data: {"n":\ndata: 1}', Item(b'{"n":\n1}')),
        (b'data: {"text":"\\ud83d"}', Item(b'{"text":"\\ud83d"}')),
        (b"data: [DONE]", Item(b"[DONE]", ItemKind.DONE)),
        (b"data:  [DONE] ", Item(b" [DONE] ", ItemKind.DONE)),
        (b'{"error":{}}', Item(b'{"error":{}}')),
        (b': queued\n{\n"error":{}}', Item(b'{\n"error":{}}')),
        (b'event: error\n{"error":{}}\n', Item(b'{"error":{}}', event="error")),
    ],
)
def test_a_complete_last_event_without_a_blank_line_is_an_item(left: bytes, item: Item) -> None:
    before = b"data: {}\n\n"
    assert decode(Shape.SSE, [before + left]) == ([Item(b"{}"), item], False)


@pytest.mark.parametrize(
    "left", [b'data: {"n":', b"data: hello", b"data: 12", b"data: [DON", b"event: x\n", b"da", b'{"error":{', b"<html>"]
)
def test_an_event_that_may_be_incomplete_is_truncated(left: bytes) -> None:
    assert decode(Shape.SSE, [b"data: {}\n\n", left]) == ([Item(b"{}")], True)


@pytest.mark.parametrize("left", [b"", b"\n", b"  \r\n \n", b": keep-alive", b": a\n: b\n", b"\xef\xbb\xbf"])
def test_blanks_and_comments_at_the_end_are_not_truncation(left: bytes) -> None:
    decoder = SseDecoder(LIMIT)
    assert decoder.feed(left) == decoder.finish() == []
    assert not decoder.truncated
    assert decoder.pending_bytes == 0
