"""Items that are read in parts: they say the same as in one piece."""

import base64
import itertools
import json
import random

import orjson
import pytest

from bridge.errors import BrokenStream, ItemTooLarge
from bridge.formats import eventstream, json_array, long_item, ndjson, sse
from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LongItem
from bridge.formats.response import beginning_of_invalid, parse_response
from bridge.formats.stream_reader import StreamReader
from bridge.protocol.frames import EventFrames
from tests.support.aws_eventstream import event, header, message, string_header
from tests.support.decoding import decode, in_pieces

LINES = [
    b"event: delta",
    b"event:",
    b"id: 7",
    b": comment",
    b":HTTP_STATUS/429",
    b"error: busy",
    b'data: {"a":"0123456789"',
    b'data: ,"b":[1,2]}',
    b'data:{"c":"0123456789012345"}',
    b"data: ping",
    b"data",
    b"data:",
    b"data: [DONE]",
    b'{"bare":1}',
    b"unknown: x",
    b"da",
    b"",
    b"",
]
ELEMENTS = [
    b'{"a": "0123456789" , "b" : [ 1 , 2 ] } ',
    b'"a string, \\" [ { of some length  "',
    b"[[[[1]]], 123456789012345]",
    b"1234567890123456 ",
    b'{"a" "no JSON"}',
    b"   ",
    b"12345   67890",
]
CLOSINGS = [[b"1]"], [b"1]", b"1"], [b"1]", b'["a value of another array"]'], []]
ENDS = [b"\n", b"\r\n", b"\r"]


def frames(items: list[Item]) -> list[bytes]:
    reader = StreamReader()
    for item in items:
        reader.read(item)
    return [bytes(frame) for frame in EventFrames(b"1", compat=False).items(items)]


def set_limit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    for module in (sse, ndjson, json_array, eventstream):
        monkeypatch.setattr(module, "LONG_ITEM_BYTES", limit)
    monkeypatch.setattr(long_item, "BLOCK_BYTES", 8)  # the first block decides the kind


@pytest.mark.parametrize(
    ("shape", "seed"), list(itertools.product([Shape.SSE, Shape.NDJSON, Shape.JSON_ARRAY], range(15)))
)
def test_a_body_gives_the_same_frames_in_parts_and_in_one_piece(
    shape: Shape, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        end = draw.choice(ENDS)
        lines = draw.choices(LINES, k=draw.randrange(1, 12))
        if shape is Shape.NDJSON:
            end, lines = b"\n", [line.removeprefix(b"data:") for line in lines]
        if shape is Shape.JSON_ARRAY:
            end, lines = draw.choice([b",", b" ,\r\n "]), [b"[", *draw.choices(ELEMENTS, k=4), *draw.choice(CLOSINGS)]
        body = end.join(lines) + draw.choice([b"", end, end * 2])
        cuts = sorted(draw.sample(range(len(body) + 1), min(len(body), draw.randrange(1, 8))))
        reads = [body[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(body)])]
        set_limit(monkeypatch, 8)
        in_parts = decode(shape, reads)
        set_limit(monkeypatch, 1 << 20)
        in_one_piece = decode(shape, reads)
        assert (frames(in_parts[0]), in_parts[1]) == (frames(in_one_piece[0]), in_one_piece[1]), reads


@pytest.mark.parametrize(("shape", "begin"), [(Shape.SSE, b'data: {"a":"'), (Shape.NDJSON, b'{"a":"')])
def test_a_long_item_is_counted_while_it_comes(shape: Shape, begin: bytes) -> None:
    decoder = decoder_for(shape, 1 << 20)
    decoder.feed(begin)
    for count in range(1, 16):
        assert decoder.feed(b"y" * 65_536) == []
        assert decoder.pending_bytes == len(begin) + count * 65_536
    with pytest.raises(ItemTooLarge):
        decoder.feed(b"y" * 65_536)


def long_item_of(shape: Shape, body: bytes, read_bytes: int = 65_521) -> Item:
    [item], truncated = decode(shape, in_pieces(body, read_bytes), 64 << 20)
    assert not truncated
    return item


@pytest.mark.parametrize(("shape", "framing"), [(Shape.SSE, b"data: %b\n\n"), (Shape.NDJSON, b'{"%b\n')])
@pytest.mark.parametrize("text", [b"\xc3\xbc", b"\xe2\x82\xac\xff", b'\x00"\\', b"\xf0\x9f\x98\x80"])
def test_a_long_text_is_the_same_string_as_a_short_one(shape: Shape, framing: bytes, text: bytes) -> None:
    body = framing % (text * 200_003)
    item = long_item_of(shape, body)
    assert item.parts is not None
    [frame] = frames([item])
    plain = body.strip().removeprefix(b"data: ")
    assert orjson.loads(frame)["response"] == plain.decode(errors="replace")
    is_malformed = shape is Shape.NDJSON or b"\xff" in text
    assert item.kind is (ItemKind.MALFORMED if is_malformed else ItemKind.TEXT)
    assert orjson.loads(frame).get("malformed", False) is is_malformed


@pytest.mark.parametrize("before", [b": %b\n", b"unknown: %b\n", b"unknown%b\n", b": a\n: %b\n", b" " * 99 + b"%b\n"])
def test_a_long_line_without_data_is_not_collected(before: bytes) -> None:
    decoder = decoder_for(Shape.SSE, 64 << 20)
    for _ in range(40):
        assert decoder.feed(before.replace(b"\n", b"") % (b"y" * 65_536)) == []
    held = decoder._long  # type: ignore[attr-defined]  # of SseDecoder
    assert len(held._line) < 200_000
    assert [item.data for item in decoder.feed(b"\ndata: {}\n\n")] == [b"{}"]


def test_many_short_lines_of_comments_are_one_block() -> None:
    item = long_item_of(Shape.SSE, b": a\n" * 400_000 + b":HTTP_STATUS/429\n" + b": b\n" * 9 + b'data: {"a":1}\n\n')
    assert (item.data, item.status) == (b'{"a":1}', 429)


@pytest.mark.parametrize("field", [b"event: %b", b"id: %b", b"error: %b"])
def test_a_field_of_more_than_1_mib_is_refused(field: bytes) -> None:
    with pytest.raises(ItemTooLarge):
        decode(Shape.SSE, [field % b"y", *[b"y" * 65_536] * 17], 64 << 20)


def test_error_fields_of_more_than_1_mib_together_are_refused() -> None:
    with pytest.raises(ItemTooLarge):
        decode(Shape.SSE, [b"error: %b\n" % (b"y" * 65_536)] * 17, 64 << 20)


def test_bare_json_that_is_long_is_one_item_with_all_its_lines() -> None:
    text = b'{"a":"%b",\n: no comment\ndata: "no field"}' % (b"y" * 400_000)
    item = long_item_of(Shape.SSE, text + b"\n\n")
    assert item.kind is ItemKind.MALFORMED
    assert orjson.loads(frames([item])[0])["response"] == text.decode()


def test_a_long_block_without_data_is_no_item() -> None:
    assert decode(Shape.SSE, in_pieces(b": a\n" * 200_000 + b"\n", 65_536)) == ([], False)
    assert decode(Shape.SSE, in_pieces(b": a\n" * 200_000, 65_536)) == ([], False)
    assert decode(Shape.SSE, in_pieces(b"retry: 9\n" * 99_000, 65_536)) == ([], True)
    assert decode(Shape.NDJSON, in_pieces(b" " * 400_000 + b"\n", 65_536)) == ([], False)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"bytes":"%b","p":"abcd"}' % base64.b64encode(b'{"a":"%b"}' % (b"y" * 400_001)),
        b' { "bytes" : "%b"}' % base64.b64encode(b"text" * 100_000),
        b'{"p":"abcd","bytes":"%b"}' % base64.b64encode(b"y" * 400_000),
        b'{"a":"%b"}' % (b"y" * 400_000),
        b"\xff" * 400_000,
    ],
)
@pytest.mark.parametrize("name", ["chunk", "contentBlockDelta"])
def test_a_long_message_gives_the_same_frame_with_any_reads(name: str, payload: bytes) -> None:
    body = event(name, payload) + event("next", b"{}")
    for read_bytes in (65_536, 1021):
        items, truncated = decode(Shape.EVENT_STREAM, in_pieces(body, read_bytes), 64 << 20)
        assert [item.event for item in items] == [name, "next"]
        assert items[0].parts is not None
        assert not truncated
        is_chunk = name == "chunk" and not payload.startswith(b'{"p"')
        value = json.loads(frames(items)[0])["response"]
        if is_chunk and b"bytes" in payload[:9]:
            content = base64.b64decode(json.loads(payload)["bytes"])
            assert value == (json.loads(content) if content.startswith(b"{") else content.decode())
        else:
            assert value == (json.loads(payload) if payload.startswith(b"{") else payload.decode(errors="replace"))


def test_a_long_binary_message_is_base64() -> None:
    headers = string_header(":content-type", "application/octet-stream")
    payload = bytes(range(256)) * 2000
    [item], _ = decode(Shape.EVENT_STREAM, in_pieces(message(headers, payload), 65_536), 64 << 20)
    frame = json.loads(frames([item])[0])
    assert (base64.b64decode(frame["response"]), frame["encoding"]) == (payload, "base64")


def test_a_long_exception_is_marked_as_one() -> None:
    headers = string_header(":message-type", "exception") + string_header(":exception-type", "throttlingException")
    body = message(headers, b'{"message":"%b"}' % (b"y" * 400_000))
    [item], _ = decode(Shape.EVENT_STREAM, in_pieces(body, 65_536), 64 << 20)
    assert (item.exception, item.event) == (True, "throttlingException")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"bytes":"%b"' % (b"YWJj" * 100_000),
        b'{"bytes":"%bYWI="}' % (b"YWI=" * 100_000),
        b'{"bytes":"%bY"}' % (b"YWJj" * 100_000),
        b'{"bytes":"%b*"}' % (b"YWJj" * 100_000),
        b'{"bytes":"YWJj","p":"%b"}' % (b"y" * 400_000),
    ],
)
def test_a_long_chunk_without_valid_base64_breaks_the_stream(payload: bytes) -> None:
    with pytest.raises(BrokenStream):
        decode(Shape.EVENT_STREAM, in_pieces(event("chunk", payload), 65_536), 64 << 20)


@pytest.mark.parametrize("at", [20, 200_000, 399_000, -1])
def test_one_wrong_bit_in_a_long_message_breaks_the_stream(at: int) -> None:
    body = bytearray(event("delta", b'{"a":"%b"}' % (b"y" * 400_000)))
    body[at] ^= 1
    with pytest.raises(BrokenStream):
        decode(Shape.EVENT_STREAM, in_pieces(bytes(body), 65_536), 64 << 20)


def test_headers_longer_than_the_specification_allows_break_the_stream() -> None:
    with pytest.raises(BrokenStream):
        decode(Shape.EVENT_STREAM, [message(header("a", 6, b"\0\0") * 40_000, b"{}")[:400_000]], 64 << 20)


@pytest.mark.parametrize("size", [1000, 65_536, 1 << 20])
def test_a_long_run_of_blanks_is_not_held(size: int) -> None:
    """Otherwise each read would copy it, and the data behind it would be processed in one call."""
    line = LongItem(blanks=b" \t")
    body = b'{"a":' + b" " * (1 << 20) + b"1}" + b" " * (80 << 10)
    held = 0
    for piece in in_pieces(body, size):
        line.feed(piece)
        held = max(held, len(line._held_blanks))
    assert held <= 65_536
    assert b"".join(line.item().parts or []) == body[:-65_536]


# Bodies in one piece

LONG_TEXT = b'{"a":"' + b"y" * (300 << 10)
INVALID = [
    LONG_TEXT,
    b"\xef\xbb\xbf" + LONG_TEXT,
    LONG_TEXT + b'"}}',
    b"{}" + b" " * (100 << 10) + LONG_TEXT,
    b'[{"error":' + LONG_TEXT,
    b"[ERROR] " + b"z" * (300 << 10),
    b"<html>" + b"z" * (300 << 10),
]


@pytest.mark.parametrize("body", INVALID, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("status", [200, 206, 302, 400, 503])
@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/plain", ""])
@pytest.mark.parametrize("from_model", [False, True])
def test_the_beginning_of_a_long_invalid_body_is_read_like_the_body(
    body: bytes, status: int, content_type: str, from_model: bool
) -> None:
    expected = parse_response(status, body, content_type, from_model=from_model)
    assert parse_response(status, beginning_of_invalid(body), content_type, from_model=from_model) == expected


@pytest.mark.parametrize("size", [1 << 16, 400 << 10])
def test_a_byte_order_mark_is_no_part_of_a_long_body(size: int) -> None:
    check = long_item.LongBody()
    body = b"\xef\xbb\xbf" + LONG_TEXT + b'"}'
    for piece in in_pieces(body, size):
        check.feed(piece)
    short = check.finish()
    assert short is not None
    assert short.startswith(b'{"a":"yyy')
