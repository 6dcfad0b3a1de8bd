"""Detect the shape of a body by its content type, or by its first bytes if they contradict it."""

import pytest

from bridge.formats.decoders import HEAD_BYTES, BytesDecoder, Shape, decoder_for, sniff
from bridge.formats.item import Item, ItemKind

CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
SSE = "text/event-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
AWS = "application/vnd.amazon.eventstream"


@pytest.mark.parametrize(
    ("content_type", "path", "head", "shape"),
    [
        (SSE, CHAT, b"d", Shape.SSE),
        (SSE, CHAT, b"e", Shape.SSE),
        (SSE, CHAT, b":", Shape.SSE),
        (SSE, CHAT, b"\r\n\r\ndata: {}", Shape.SSE),
        (SSE, CHAT, b"<html>", Shape.SSE),
        (SSE, CHAT, b'{"error":1}\n\ndata: {}', Shape.SSE),
        (SSE, GEMINI, b'{\n  "error": {', Shape.SSE),
        (SSE, CHAT, b'{"n":1}\n{', Shape.NDJSON),
        (SSE, CHAT, b'\xef\xbb\xbf {"n":1}\r\n\r\n{"n', Shape.NDJSON),
        (SSE, GEMINI, b'[{"n":1}\n,', Shape.SSE),
        (NDJSON, CHAT, b"{", Shape.NDJSON),
        ("application/jsonl", CHAT, b"[", Shape.NDJSON),
        ("application/stream+json", CHAT, b" 5", Shape.NDJSON),
        (NDJSON, CHAT, b"data:", Shape.SSE),
        (AWS, CHAT, b"", Shape.EVENT_STREAM),
        (AWS, CHAT, b"data:", Shape.EVENT_STREAM),
        ("audio/mpeg", CHAT, b"", Shape.BYTES),
        ("video/mp4", CHAT, b":", Shape.BYTES),
        (JSON, GEMINI, b"\n[", Shape.JSON_ARRAY),
        (JSON, GEMINI, b'{\n "error"', Shape.SINGLE),
        (JSON, GEMINI, b"data: {", Shape.SSE),
        (JSON, CHAT, b"[\n{", Shape.SINGLE),
        (JSON, CHAT, b'{\n  "id"', Shape.SINGLE),
        (JSON, CHAT, b'{"a":\n{"b":1}}', Shape.SINGLE),
        (JSON, CHAT, b'{"n":1}\n{"n":2}', Shape.NDJSON),
        (JSON, CHAT, b"[1]\n\n[", Shape.NDJSON),
        (JSON, CHAT, b'{"text":"\\ud83d"}\n{', Shape.NDJSON),
        (JSON, CHAT, b'{"n":1}\n5', Shape.SINGLE),
        (JSON, CHAT, b"null", Shape.SINGLE),
        ("text/plain", CHAT, b"data:", Shape.SSE),
        ("text/plain", CHAT, b"event: x", Shape.SSE),
        ("text/plain", CHAT, b"id:1", Shape.SSE),
        ("text/plain", CHAT, b"retry:1", Shape.SSE),
        ("", CHAT, b"\xef\xbb\xbf: hi", Shape.SSE),
        ("text/plain", CHAT, b"date", Shape.SINGLE),
        ("text/plain", CHAT, b"data is", Shape.SINGLE),
        ("text/plain", CHAT, b"Data:", Shape.SINGLE),
        ("image/png", CHAT, b"\x89PNG", Shape.SINGLE),
    ],
)
def test_a_shape_is_detected_as_early_as_possible_and_stays(
    content_type: str, path: str, head: bytes, shape: Shape
) -> None:
    earlier = {sniff(content_type, path, head[:length], ended=False) for length in range(len(head) + 1)}
    assert earlier <= {None, shape}
    assert sniff(content_type, path, head, ended=False) is shape
    assert sniff(content_type, path, head, ended=True) is shape
    for more in (b"\n", b"{}", b"data: {}\n\n", b"\xff"):
        assert sniff(content_type, path, head + more, ended=False) is shape


@pytest.mark.parametrize(
    ("content_type", "path", "head", "label"),
    [
        (SSE, CHAT, b"", Shape.SSE),
        (SSE, CHAT, b" \n\n", Shape.SSE),
        (SSE, CHAT, b"\xef\xbb", Shape.SSE),
        (SSE, CHAT, b'{"error":{"code":503}}', Shape.SSE),
        (SSE, CHAT, b'{"error":{"code":503}}\n', Shape.SSE),
        (JSON, CHAT, b"", Shape.SINGLE),
        (JSON, CHAT, b'{"id":1}', Shape.SINGLE),
        (JSON, CHAT, b'{"id":1}\n', Shape.SINGLE),
        (JSON, GEMINI, b"", Shape.SINGLE),
        (NDJSON, CHAT, b"\n", Shape.NDJSON),
        ("text/plain", CHAT, b"dat", Shape.SINGLE),
        ("", CHAT, b"", Shape.SINGLE),
    ],
)
def test_the_content_type_decides_when_the_first_bytes_do_not(
    content_type: str, path: str, head: bytes, label: Shape
) -> None:
    assert sniff(content_type, path, head, ended=False) is None
    assert sniff(content_type, path, head, ended=True) is label


@pytest.mark.parametrize(("content_type", "label"), [(SSE, Shape.SSE), (JSON, Shape.SINGLE)])
@pytest.mark.parametrize("byte", [b"{", b" "])
def test_at_most_64_kib_are_buffered_to_detect_the_shape(content_type: str, label: Shape, byte: bytes) -> None:
    head = byte * HEAD_BYTES
    assert sniff(content_type, CHAT, head[1:], ended=False) is None
    assert sniff(content_type, CHAT, head, ended=False) is label


def test_every_read_of_a_binary_body_is_an_item() -> None:
    decoder = BytesDecoder()
    assert decoder.feed(b"\xff\xfb") == [Item(b"\xff\xfb", ItemKind.BYTES)]
    assert decoder.feed(b"") == decoder.finish() == []
    assert decoder.pending_bytes == 0
    assert not decoder.truncated


@pytest.mark.parametrize("shape", [shape for shape in Shape if shape is not Shape.SINGLE])
def test_every_shape_that_streams_has_a_decoder(shape: Shape) -> None:
    decoder = decoder_for(shape, 100)
    assert decoder.feed(b"") == decoder.finish() == []
    assert not decoder.truncated


def test_a_body_in_one_piece_has_no_decoder() -> None:
    with pytest.raises(KeyError):
        decoder_for(Shape.SINGLE, 100)
