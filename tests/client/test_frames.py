"""Frames, read: what they tell, and which bytes of a provider stand in them."""

import base64

import orjson
import pytest

from bridge.client import Attempt, Failure, Frame, Metadata, Usage
from bridge.protocol.frames import EventFrames, response_value


def frame(kind: str = "stream", **members: object) -> Frame:
    return Frame.of(orjson.dumps({"type": f"universal.{kind}", **members}))


def test_all_that_a_last_frame_tells_has_a_name_and_a_type() -> None:
    received = frame(
        "done",
        metadata={
            "eventId": 7,
            "cacheStatus": "MISS",
            "logId": "0190",
            "step": "1",
            "provider": "groq",
            "contentType": "text/event-stream",
            "status": 200,
            "success": True,
            "headers": {"x-request-id": "r"},
            "restarted": True,
            "attempts": [
                {"step": "0", "provider": "openai", "durationMs": 3, "status": 503, "code": 503, "reason": "busy"},
                {"step": "1", "provider": "groq", "durationMs": 4, "status": 200},
            ],
            "durationMs": 9,
            "chunks": 2,
            "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
            "cost": 0.5,
            "warnings": ["clamped"],
            "of a later version": {},
        },
    )
    assert received.metadata == Metadata(
        event_id=7,
        cache_status="MISS",
        log_id="0190",
        step="1",
        provider="groq",
        content_type="text/event-stream",
        status=200,
        success=True,
        headers={"x-request-id": "r"},
        restarted=True,
        attempts=(Attempt("0", "openai", 503, 503, 3, "busy"), Attempt("1", "groq", 200, None, 4)),
        duration_ms=9,
        chunks=2,
        usage=Usage(3, 2, None, 5),
        cost=0.5,
        warnings=("clamped",),
    )


def test_an_error_is_typed_too() -> None:
    error = {"code": 429, "message": "slow down", "source": "provider", "retryable": True, "retryAfterMs": 1500}
    assert frame("error", error=error).error == Failure(429, "slow down", "provider", True, 1500)


@pytest.mark.parametrize(
    ("members", "is_last"),
    [
        ({"kind": "created"}, False),
        ({"kind": "created", "response": None}, True),
        ({"kind": "stream", "response": {}}, False),
        ({"kind": "done"}, True),
        ({"kind": "error"}, True),
        ({"kind": "heartbeat"}, False),
        ({"kind": "of a later version"}, False),
    ],
)
def test_a_frame_knows_whether_it_is_its_events_last(members: dict[str, object], is_last: bool) -> None:
    kind = str(members.pop("kind"))
    assert (frame(kind, **members).type, frame(kind, **members).is_last) == (kind, is_last)


@pytest.mark.parametrize("raw", [b"", b"hello", b"[]", b"{}", b'{"type":5}', b'{"type":"a","metadata":[]}', b"\xff"])
def test_an_invalid_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        Frame.of(raw)


def test_half_an_emoji_is_read_and_the_rest_of_its_frame_with_it() -> None:
    read = Frame.of(rb'{"type":"universal.stream","metadata":{"eventId":"\u00e9"},"id":"1","response":{"a":"\ud83d"}}')
    assert (read.metadata.event_id, read.id, read.response) == ("\u00e9", "1", {"a": "\ud83d"})
    assert read.body == rb'{"a":"\ud83d"}'


BODIES: dict[str, tuple[bytes, str]] = {
    "JSON": (b'{"a":[1,2.50,"}"]}', "application/json"),
    "with white space around it": (b'\r\n\t {"a": 1 }\n \n', "application/json"),
    "that is a string": (b'"\\u00e9 \\"x\\""', "application/json"),
    "that is a number": (b" 1e400 ", "application/json"),
    "that is null": (b"null\n", "application/problem+json"),
    "with names that look like the frame's own": (b'{"response":1,"error":2}', "application/json"),
    "with half an emoji": (rb' {"a":"\ud83d", "\\ud83d":"\\\ud83d"} ', "application/json"),
    "nested deep": (b"[" * 900 + b"]" * 900, "application/json"),
    "text": (b"caf\xc3\xa9 \x00 \xe2\x80\xa8", "text/plain"),
    "text that could be JSON": (b'"1"', "text/html"),
    "text of another encoding": (b"caf\xe9", "text/plain"),
    "bytes": (bytes(range(256)), "application/octet-stream"),
    "nothing": (b"", "application/json"),
    "what should be JSON": (b"<html>", "application/json"),
    "what nests too deep to be JSON": (b"[" * 100_000 + b"]" * 100_000, "application/json"),
}


@pytest.mark.parametrize(("body", "content_type"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("error", [None, {"code": 500, "message": '"response": 1'}])
@pytest.mark.parametrize("event_id", [b"7", rb'"a\"}\ud83d,"', b'"response"'])
def test_the_body_of_an_answer_in_one_piece_is_the_providers(
    body: bytes, content_type: str, error: dict[str, object] | None, event_id: bytes
) -> None:
    """As the bridge writes it with `frames: raw`: to the byte."""
    metadata = {"step": "0", "headers": {"x": '"response":'}}
    frames = EventFrames(event_id, compat=False)
    parts = frames.response(metadata, response_value(body, content_type, raw=True), error)
    assert Frame.of(b"".join(parts)).body == body


def test_the_body_is_found_in_frames_that_somebody_else_wrote() -> None:
    raw = b'\n{ "type" : "universal.created" , "response" :\t[ 1 ] , "metadata" : {} } '
    assert Frame.of(raw).body == b"\t[ 1 ] "


def test_the_content_of_base64_is_bytes_and_of_all_else_the_response() -> None:
    assert frame(response=base64.b64encode(b"\xff").decode(), encoding="base64").content == b"\xff"
    assert frame(response="caf\u00e9", encoding="text").content == "caf\u00e9"
    assert frame(response={"a": None}).content == {"a": None}
    assert frame().content is None
