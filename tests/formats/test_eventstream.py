"""AWS event streams: the meaning of messages, and detection of damage."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BrokenStream, ItemTooLarge
from bridge.formats.decoders import Shape
from bridge.formats.eventstream import EventStreamDecoder
from bridge.formats.item import Item, ItemKind
from tests.support.aws_eventstream import event, header, message, string_header
from tests.support.decoding import LIMIT, bytewise, cut_at, decode, pending_everywhere

DELTA = event("contentBlockDelta", b'{"delta":{"text":"Hi"}}')
CHUNK = event("chunk", b'{"bytes":"%s","p":"abc"}' % base64.b64encode(b'{"type":"ping"}'))
STOP = event("messageStop", b'{"stopReason":"end_turn"}')
BODY = DELTA + CHUNK + STOP
ITEMS = [
    Item(b'{"delta":{"text":"Hi"}}', event="contentBlockDelta"),
    Item(b'{"type":"ping"}', event="chunk"),
    Item(b'{"stopReason":"end_turn"}', event="messageStop"),
]


@given(places=st.lists(st.integers(0, len(BODY))))
def test_messages_are_items_with_any_split(places: list[int]) -> None:
    assert decode(Shape.EVENT_STREAM, [BODY]) == (ITEMS, False)
    assert decode(Shape.EVENT_STREAM, cut_at(BODY, places)) == (ITEMS, False)
    assert decode(Shape.EVENT_STREAM, bytewise(BODY)) == (ITEMS, False)


def test_the_bytes_that_are_not_pending_end_with_a_message() -> None:
    pending = pending_everywhere(Shape.EVENT_STREAM, BODY)
    assert [length for length, left in enumerate(pending, start=1) if not left] == [
        len(DELTA),
        len(DELTA + CHUNK),
        len(BODY),
    ]


@pytest.mark.parametrize("length", [1, 11, 12, 50, len(DELTA) - 1])
def test_an_incomplete_message_is_truncated(length: int) -> None:
    assert decode(Shape.EVENT_STREAM, [STOP, DELTA[:length]]) == ([ITEMS[2]], True)


def test_an_exception_is_an_item_marked_as_one() -> None:
    headers = string_header(":message-type", "exception") + string_header(":exception-type", "throttlingException")
    items, _ = decode(Shape.EVENT_STREAM, [message(headers, b'{"message":"slow down"}')])
    assert items == [Item(b'{"message":"slow down"}', event="throttlingException", exception=True)]


def test_an_error_without_payload_has_its_text_as_data() -> None:
    headers = (":message-type", "error"), (":error-code", "InternalError"), (":error-message", 'it "broke"')
    items, _ = decode(Shape.EVENT_STREAM, [message(b"".join(string_header(*pair) for pair in headers), b"")])
    assert items == [Item(b'{"message":"it \\"broke\\""}', event="InternalError", exception=True)]


OTHER_HEADERS = [
    header("true", 0, b""),
    header("false", 1, b""),
    header("byte", 2, b"\x07"),
    header("short", 3, b"\x07" * 2),
    header("int", 4, b"\x07" * 4),
    header("long", 5, b"\x07" * 8),
    header("bytes", 6, b"\x00\x03\x07\x07\x07"),
    header("timestamp", 8, b"\x07" * 8),
    header("uuid", 9, b"\x07" * 16),
]


@given(headers=st.permutations([*OTHER_HEADERS, string_header(":event-type", "größe")]))
def test_headers_of_other_types_are_skipped(headers: list[bytes]) -> None:
    assert decode(Shape.EVENT_STREAM, [message(b"".join(headers), b"{}")])[0] == [Item(b"{}", event="größe")]


@pytest.mark.parametrize(
    ("headers", "payload", "item"),
    [
        (b"", b"{}", Item(b"{}")),
        (string_header(":event-type", "chunk"), b'{"other":1}', Item(b'{"other":1}', event="chunk")),
        (string_header(":event-type", "chunk"), b'{"bytes":"?"}', Item(b'{"bytes":"?"}', event="chunk")),
        (string_header(":content-type", "application/octet-stream"), b"{\xff", Item(b"{\xff", ItemKind.BYTES)),
        (string_header(":content-type", "text/plain"), b"hello", Item(b"hello", ItemKind.TEXT)),
    ],
)
def test_a_payload_is_not_changed(headers: bytes, payload: bytes, item: Item) -> None:
    assert decode(Shape.EVENT_STREAM, [message(headers, payload)])[0] == [item]


@pytest.mark.parametrize("at", range(len(DELTA)))
def test_one_wrong_bit_anywhere_breaks_the_stream(at: int) -> None:
    damaged = DELTA[:at] + bytes([DELTA[at] ^ 4]) + DELTA[at + 1 :]
    with pytest.raises(BrokenStream, match="CRC"):
        decode(Shape.EVENT_STREAM, [damaged])


@pytest.mark.parametrize(
    "broken",
    [
        message(b"", b"", headers_length=1),
        message(b"", b"{}", headers_length=3),
        message(header("unknown", 10, b""), b""),
        message(header("short", 3, b"\x07"), b""),
        message(b"\x05name", b""),
        message(b"\x04name\x07\x00", b""),
        message(b"\x04name\x07\x00\x09text", b""),
        message(string_header("n", "v") + b"\x01\xff\x07\x00\x00", b""),
    ],
)
def test_wrong_lengths_break_the_stream(broken: bytes) -> None:
    with pytest.raises(BrokenStream):
        decode(Shape.EVENT_STREAM, [broken])


def test_a_length_over_the_limit_is_rejected_before_the_message_arrives() -> None:
    decoder = EventStreamDecoder(LIMIT)
    prelude = message(b"", b"x" * LIMIT)[: struct.calcsize(">III")]
    with pytest.raises(ItemTooLarge):
        decoder.feed(prelude)
