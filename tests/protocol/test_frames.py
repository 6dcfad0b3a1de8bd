"""Server frames: their shapes. Each is one JSON value in UTF-8, whatever a provider sent."""

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.errors import (
    BadField,
    BridgeError,
    Cancelled,
    EventIdInUse,
    NoAnswerInTime,
    ProviderErrorInStream,
    ProviderStatus,
    UnknownProvider,
)
from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.item import Item, ItemKind
from bridge.formats.stream_reader import StreamReader
from bridge.protocol.frames import EventFrames, error_body, error_object, heartbeat, refusal, response_value

FRAMES = EventFrames(b'"my-request"', compat=False)
METADATA = {"cacheStatus": "MISS", "step": "0"}


def read(frame: bytes) -> Any:
    return json.loads(frame.decode())


def response(item: Item) -> dict[str, Any]:
    """Return the members of an item's only frame, without type and metadata."""
    [frame] = FRAMES.items([item])
    members: dict[str, Any] = read(frame)
    assert members.pop("type") == "universal.stream"
    assert members.pop("metadata") == {"eventId": "my-request"}
    return members


def answer(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the response member of an answer in one piece."""
    members: dict[str, Any] = read(b'{"response":' + response_value(body, content_type) + b"}")
    return members


# The frames of an event.


def test_a_stream_opens_without_a_response_and_is_done_without_one() -> None:
    metadata = {"eventId": "my-request"} | METADATA
    assert read(FRAMES.stream_start(METADATA)) == {"type": "universal.created", "metadata": metadata}
    assert read(FRAMES.done(METADATA)) == {"type": "universal.done", "metadata": metadata}


def test_an_answer_in_one_piece_is_created_with_its_response() -> None:
    assert read(b"".join(FRAMES.response(METADATA, b'{"a":1}'))) == {
        "type": "universal.created",
        "metadata": {"eventId": "my-request"} | METADATA,
        "response": {"a": 1},
    }


def test_a_failed_answer_has_response_and_error_side_by_side() -> None:
    error = UnknownProvider("no such provider")
    members = read(b"".join(FRAMES.response(METADATA, error_body(error), error_object(error))))
    assert list(members) == ["type", "metadata", "response", "error"]
    assert members["response"]["internalCode"] == members["error"]["code"] == 2008


@pytest.mark.parametrize(("compat", "type_"), [(False, "universal.error"), (True, "universal.done")])
def test_a_broken_stream_ends_with_an_error_or_with_done_in_compat_mode(compat: bool, type_: str) -> None:
    frames = EventFrames(b"7", compat=compat)
    assert read(frames.error({"success": False}, error_object(Cancelled("cancelled by the client")))) == {
        "type": type_,
        "metadata": {"eventId": 7, "success": False},
        "error": {"code": 9020, "message": "cancelled by the client", "source": "client", "retryable": False},
    }


@pytest.mark.parametrize(
    "raw", [rb'"\u0061"', b"-0", b"123456789012345678901234567890", rb'"\ud83d"', '"é😀"'.encode()]
)
def test_every_frame_echoes_the_event_id_unchanged(raw: bytes) -> None:
    frames = EventFrames(raw, compat=False)
    error = error_object(Cancelled("x"))
    item = Item(b"{}")
    for frame in (
        frames.stream_start(METADATA),
        b"".join(frames.response(METADATA, b"1", error)),
        frames.done(METADATA),
        frames.error(METADATA, error),
        *frames.items([item, Item(b"x", ItemKind.TEXT)]),
        frames.run(b"x"),
        heartbeat([(raw, "streaming", "0")]),
        refusal(EventIdInUse("x"), 0, raw),
    ):
        assert b'"eventId":' + raw in frame
        assert frame.count(b'"eventId"') == 1
        read(frame)


def test_a_heartbeat_lists_the_events_in_flight() -> None:
    assert read(heartbeat([(b'"a"', "waiting", "0"), (b"7", "streaming", "2")])) == {
        "type": "universal.heartbeat",
        "events": [
            {"eventId": "a", "phase": "waiting", "step": "0"},
            {"eventId": 7, "phase": "streaming", "step": "2"},
        ],
    }
    assert read(heartbeat([])) == {"type": "universal.heartbeat", "events": []}


# Items.


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1.0, "a" :1e400}',
        b'{"n":123456789012345678901234567890}',
        rb'{"half":"\ud83d"}',
        '{"line":"\u2028","é":"😀"}'.encode(),
        b'[1,\n2 , "x"]',
        b"{}",
    ],
)
@pytest.mark.parametrize("event", [None, "other"])
def test_json_is_copied_unchanged(data: bytes, event: str | None) -> None:
    [frame] = FRAMES.items([Item(data, event=event)])
    assert frame.startswith(b'{"type":"universal.stream","metadata":{"eventId":"my-request"},"response":' + data)
    read(frame)


@pytest.mark.parametrize(
    ("data", "kind", "event", "shown"),
    [
        ('{"type":"ping"}', ItemKind.JSON, None, None),
        ('{"type":"ping"}', ItemKind.JSON, "ping", None),
        ('{ "type" : "ping" }', ItemKind.JSON, "ping", None),
        ('{"index":0,"type":"ping"}', ItemKind.JSON, "ping", None),
        ('{"type":"ping","text":"\\ud83d"}', ItemKind.JSON, "ping", None),
        ('{"text":"\\ud83d","type":"ping"}', ItemKind.JSON, "ping", None),
        ('{"type":"p\\u0069ng"}', ItemKind.JSON, "ping", None),
        ('{"type":"é"}', ItemKind.JSON, "é", None),
        ('{"type":"a\\"b"}', ItemKind.JSON, 'a"b', None),
        ('{"type":"message"}', ItemKind.JSON, "message", None),
        ('{"type":"ping"}', ItemKind.JSON, "pong", "pong"),
        ('{"type":"ping"}', ItemKind.JSON, "pin", "pin"),
        ('{"type":"pin"}', ItemKind.JSON, "ping", "ping"),
        ('{"type":"a","x":"b"}', ItemKind.JSON, 'a","x":"b', 'a","x":"b'),
        ('{"text":"\\ud83d","type":"pong"}', ItemKind.JSON, "ping", "ping"),
        ('{"inner":{"type":"ping"}}', ItemKind.JSON, "ping", "ping"),
        ('{"type":null}', ItemKind.JSON, "ping", "ping"),
        ('{"type":["ping"]}', ItemKind.JSON, "ping", "ping"),
        ('{"type":7}', ItemKind.JSON, "7", "7"),
        ("{}", ItemKind.JSON, "message", "message"),
        ('["ping"]', ItemKind.JSON, "ping", "ping"),
        ('["\\ud83d"]', ItemKind.JSON, "ping", "ping"),
        ("ping", ItemKind.TEXT, "ping", "ping"),
        ("", ItemKind.TEXT, "end", "end"),
        ('{"type":"ping"', ItemKind.MALFORMED, "ping", "ping"),
        ("\x00", ItemKind.BYTES, "audio", "audio"),
    ],
)
def test_the_event_is_sent_unless_it_is_the_type_of_the_data(
    data: str, kind: ItemKind, event: str | None, shown: str | None
) -> None:
    assert response(Item(data.encode(), kind, event)).get("event") == shown


@pytest.mark.parametrize(
    ("item", "members"),
    [
        (Item(b"{}", id="7"), {"response": {}, "id": "7"}),
        (Item(b"{}", id=""), {"response": {}, "id": ""}),
        (Item(b"{}", event="x", id='"'), {"response": {}, "event": "x", "id": '"'}),
        (Item(b'{"type":"x"}', event="x", id="1"), {"response": {"type": "x"}, "id": "1"}),
        (Item(b" 5", ItemKind.TEXT), {"response": " 5"}),
        (Item(b"null", ItemKind.TEXT), {"response": "null"}),
        (Item(b"", ItemKind.TEXT), {"response": ""}),
        (Item(b'say "hi"\n\x00\\', ItemKind.TEXT), {"response": 'say "hi"\n\0\\'}),
        (Item("é😀\u2028".encode(), ItemKind.TEXT, id="1"), {"response": "é😀\u2028", "id": "1"}),
        (Item(b"\xffok", ItemKind.TEXT), {"response": "\ufffdok", "malformed": True}),
        (Item(b'{"a":', ItemKind.MALFORMED), {"response": '{"a":', "malformed": True}),
        (Item(b'{"a":"\xf0\x9f"}', ItemKind.MALFORMED), {"response": '{"a":"\ufffd"}', "malformed": True}),
        (Item(b'{"a"', ItemKind.MALFORMED, "x", "1"), {"response": '{"a"', "malformed": True, "event": "x", "id": "1"}),
        (Item(b"\x00\xff\x10", ItemKind.BYTES), {"response": "AP8Q", "encoding": "base64"}),
    ],
)
def test_other_data_is_a_string_with_its_encoding(item: Item, members: dict[str, Any]) -> None:
    assert response(item) == members


def test_the_done_mark_has_no_frame_and_all_others_keep_their_order() -> None:
    done = Item(b"[DONE]", ItemKind.DONE)
    assert FRAMES.items([done]) == FRAMES.items([done, done]) == FRAMES.items([]) == []
    frames = FRAMES.items([Item(b"[1]"), done, Item(b"2", ItemKind.TEXT), Item(b"[3]", event="x")])
    assert [read(frame)["response"] for frame in frames] == [[1], "2", [3]]


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b"data: {}\n\n", {"response": "data: {}\n\n", "encoding": "text"}),
        ("é\r\n".encode(), {"response": "é\r\n", "encoding": "text"}),
        (b"\xef\xbb\xbfdata", {"response": "\ufeffdata", "encoding": "text"}),
        (b"\x00\xff", {"response": "AP8=", "encoding": "base64"}),
    ],
)
def test_a_raw_run_holds_the_unchanged_body(body: bytes, members: dict[str, Any]) -> None:
    frame = read(FRAMES.run(body))
    assert frame == {"type": "universal.stream", "metadata": {"eventId": "my-request"}, **members}


# Answers in one piece.


@pytest.mark.parametrize(
    ("content_type", "body", "members"),
    [
        ("application/json", b'{"a":1}', {"response": {"a": 1}}),
        ("application/json", b" 5\n", {"response": 5}),
        ("application/json", b"null", {"response": None}),
        ("application/json", b'"text"', {"response": "text"}),
        ("application/json", rb'"\ud83d"', {"response": "\ud83d"}),
        ("application/json", b"", {"response": None}),
        ("application/json", b"<html>", {"response": "<html>", "malformed": True}),
        ("application/json", b'{"a":', {"response": '{"a":', "malformed": True}),
        ("application/json", b'{"a":NaN}', {"response": '{"a":NaN}', "malformed": True}),
        ("application/json", b"{} {}", {"response": "{} {}", "malformed": True}),
        ("application/json", b'"\xff"', {"response": '"\ufffd"', "malformed": True}),
        ("application/json", b"\xef\xbb\xbf{}", {"response": "\ufeff{}", "malformed": True}),
        ("application/problem+json", b'{"status":400}', {"response": {"status": 400}}),
        ("application/vnd.api+json", b"[]", {"response": []}),
        ("text/plain", b'{"a":1}', {"response": '{"a":1}'}),
        ("text/plain", "é".encode(), {"response": "é"}),
        ("text/plain", b"", {"response": None}),
        ("text/plain", b"\xe9", {"response": "\ufffd", "malformed": True}),
        ("text/html", b"<html>", {"response": "<html>"}),
        ("text/vtt", b"WEBVTT", {"response": "WEBVTT"}),
        ("application/xml", b"<a/>", {"response": "<a/>"}),
        ("image/svg+xml", b"<svg/>", {"response": "<svg/>"}),
        ("application/x-www-form-urlencoded", b"a=b", {"response": "a=b"}),
        ("text/event-stream", b'{"error":{}}', {"response": {"error": {}}}),
        ("text/event-stream", b"data: x\n\n", {"response": "data: x\n\n"}),
        ("application/x-ndjson", b'{"error":"x"}\n', {"response": {"error": "x"}}),
        ("application/x-ndjson", b"{}\n{}\n", {"response": "{}\n{}\n"}),
        ("", b'{"a":1}', {"response": {"a": 1}}),
        ("", b"upstream connect error", {"response": "upstream connect error"}),
        ("", b"\xff\x00", {"response": "/wA=", "encoding": "base64"}),
        ("", b"", {"response": None}),
        ("application/octet-stream", b"abc", {"response": "YWJj", "encoding": "base64"}),
        ("application/octet-stream", b"", {"response": None}),
        ("image/png", b"\x89PNG", {"response": "iVBORw==", "encoding": "base64"}),
        ("audio/mpeg", b"ID3", {"response": "SUQz", "encoding": "base64"}),
        ("application/pdf", b"%PDF", {"response": "JVBERg==", "encoding": "base64"}),
        ("application/vnd.amazon.eventstream", b"\x00", {"response": "AA==", "encoding": "base64"}),
        ("multipart/form-data", b"--x", {"response": "LS14", "encoding": "base64"}),
    ],
)
def test_json_is_json_text_is_text_and_other_bytes_are_base64(
    content_type: str, body: bytes, members: dict[str, Any]
) -> None:
    assert answer(body, content_type) == members


def test_json_of_an_answer_is_copied_unchanged() -> None:
    body = b'{\n "a" : 1.0, "a": 1e400, "n": 123456789012345678901234567890 }\n'
    assert response_value(body, "application/json") is body


# Arbitrary input.


BYTES = st.binary(max_size=40) | st.lists(
    st.sampled_from(
        [
            b"data: ",
            b"event: x\n",
            b"id: 7\n",
            b'{"type":"x"',
            b"}",
            b"\n\n",
            b"\r",
            b"[DONE]",
            b'"\\ud83d"',
            b"\xf0\x9f",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(body=BYTES, shape=st.sampled_from([shape for shape in Shape if shape is not Shape.SINGLE]))
@example(body=b"data: " + b"[" * 5_000 + b"]" * 5_000 + b"\n\n", shape=Shape.SSE)
@example(body=b'event: error\ndata: {"error":"\\ud83d"}\n\n', shape=Shape.SSE)
def test_every_frame_of_a_stream_is_json_in_utf_8(body: bytes, shape: Shape) -> None:
    decoder, reader = decoder_for(shape, 1 << 20), StreamReader()
    try:
        items = [*decoder.feed(body), *decoder.finish()]
    except BridgeError:
        return
    for item in items:
        reader.read(item)
    frames = FRAMES.items(items)
    assert len(frames) == sum(item.kind is not ItemKind.DONE for item in items)
    for frame, item in zip(frames, (item for item in items if item.kind is not ItemKind.DONE), strict=True):
        members = read(frame)
        assert members["metadata"] == {"eventId": "my-request"}
        assert members.get("malformed", False) == (item.kind is ItemKind.MALFORMED)
    if reader.fault is not None:
        error = ProviderErrorInStream(reader.fault.message, retryable=False)
        read(FRAMES.error(METADATA, error_object(error)))


@given(data=st.binary())
def test_text_and_bytes_survive_a_round_trip(data: bytes) -> None:
    assert base64.b64decode(response(Item(data, ItemKind.BYTES))["response"]) == data
    run = read(FRAMES.run(data))
    whole = answer(data, "application/octet-stream")["response"] or ""
    assert base64.b64decode(whole) == data
    if run["encoding"] == "text":
        assert run["response"].encode() == data == response(Item(data, ItemKind.TEXT))["response"].encode()
        assert (answer(data, "text/plain")["response"] or "").encode() == data
    else:
        assert base64.b64decode(run["response"]) == data
        assert response(Item(data, ItemKind.TEXT))["malformed"]


@given(
    body=st.binary() | st.text().map(str.encode),
    content_type=st.sampled_from(["application/json", "text/a", "", "x/y"]),
)
def test_every_answer_is_json_in_utf_8(body: bytes, content_type: str) -> None:
    assert set(answer(body, content_type)) <= {"response", "encoding", "malformed"}


# Errors.


def test_the_error_body_has_all_members_of_cloudflares() -> None:
    assert read(error_body(BadField("request.provider: missing"))) == {
        "success": False,
        "result": [],
        "messages": [],
        "error": [{"code": 9003, "message": "request.provider: missing"}],
        "name": "AiGatewayError",
        "httpCode": 400,
        "internalCode": 9003,
        "message": "request.provider: missing",
    }


@pytest.mark.parametrize(
    ("error", "members"),
    [
        (NoAnswerInTime("late"), {"code": 9013, "message": "late", "source": "provider", "retryable": True}),
        (
            ProviderStatus(429, "slow down", retryable=True, retry_after_ms=1500),
            {"code": 429, "message": "slow down", "source": "provider", "retryable": True, "retryAfterMs": 1500},
        ),
        (
            ProviderStatus(429, "", retryable=True, retry_after_ms=0),
            {"code": 429, "message": "", "source": "provider", "retryable": True, "retryAfterMs": 0},
        ),
    ],
)
def test_an_error_has_a_source_and_is_retryable_or_not(error: BridgeError, members: dict[str, Any]) -> None:
    assert error_object(error) == members


@pytest.mark.parametrize(
    ("event_id", "known"), [(None, {}), (b'"a"', {"eventId": "a"}), (rb'"\ud83d"', {"eventId": "\ud83d"})]
)
def test_a_refusal_names_the_message_and_no_event_in_its_metadata(
    event_id: bytes | None, known: dict[str, str]
) -> None:
    assert read(refusal(EventIdInUse("in flight"), 3, event_id)) == {
        "type": "universal.error",
        "metadata": {"success": False},
        "error": {
            "code": 9004,
            "message": "in flight",
            "source": "client",
            "retryable": False,
            "messageIndex": 3,
            **known,
        },
    }


def test_an_error_s_message_can_always_be_sent() -> None:
    for error in (BadField("half \ud83d"), ProviderErrorInStream("half \ud83d", retryable=False)):
        assert read(error_body(error))["message"] == "half ?"
        read(FRAMES.error({"attempts": [{"reason": str(error)}]}, error_object(error)))


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "image/png"])
@pytest.mark.parametrize("end", [b"", b"\xc3", b"\xff", b"\x00"])
def test_a_long_body_is_encoded_like_a_short_one(content_type: str, end: bytes) -> None:
    unit = 'é"\\\n€😀y'.encode()
    long = read(b'{"response":' + response_value(unit * 40_000 + end, content_type) + b"}")
    short = read(b'{"response":' + response_value(unit * 3 + end, content_type) + b"}")
    assert long.keys() == short.keys()
    if content_type == "image/png":
        assert base64.b64decode(long["response"]) == unit * 40_000 + end
    else:
        assert long["response"] == (unit * 40_000 + end).decode(errors="replace")
