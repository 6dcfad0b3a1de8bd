"""Error reports (bridge/docs/protocol.md): one function decides for items of a stream and for bodies."""

import json
from typing import Any

import pytest

from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.error_reports import reported_error
from bridge.formats.response import Defect, parse_response
from bridge.formats.stream_reader import ProviderFault, StreamReader, StreamState, Verdict

EVERYWHERE: dict[str, Any] = {
    "error object": {"error": {"message": "m"}},
    "error text": {"error": "m"},
    "error list": {"error": [{"message": "m"}]},
    "error true": {"error": True},
    "type error": {"type": "error", "message": "m"},
    "object error": {"object": "error", "message": "m"},
    "Responses failed": {"object": "response", "status": "failed", "error": None},
    "finish_reason error": {"choices": [{"finish_reason": "error", "message": {"content": "m"}}]},
    "second choice": {"choices": [{"finish_reason": "stop"}, {"finish_reason": "error"}]},
    "MiniMax": {"base_resp": {"status_code": 1008, "status_msg": "m"}},
    "Google": [{"error": {"code": 503}}],
    "beside an answer": {"choices": [{"finish_reason": "stop"}], "error": {"message": "m"}},
}
ALONE: dict[str, Any] = {
    "errors": {"errors": [{"message": "m"}]},
    "Workers AI": {"result": None, "success": False, "errors": [{"code": 3040, "message": "m"}], "messages": []},
    "FastAPI": {"detail": "m"},
    "FastAPI list": {"detail": [{"msg": "m"}]},
    "detail with code": {"detail": "m", "code": 5, "status": "s", "type": "t", "request_id": "r", "message": "m"},
    "success false": {"success": False, "message": "m"},
    "code and message": {"code": "InvalidApiKey", "message": "m", "request_id": "r"},
    "code 500": {"code": 500, "message": "m"},
}
NEVER: dict[str, Any] = {
    **{f"error {empty!r}": {"error": empty} for empty in (None, False, 0, "", {}, [], {"code": None, "message": None})},
    "chat": {"choices": [{"finish_reason": "stop"}], "error": None},
    "status completed": {"status": "completed"},
    "MiniMax, good": {"base_resp": {"status_code": 0, "status_msg": "success"}},
    "errors empty": {"errors": [], "success": True},
    "detail of an image": {"detail": "high", "url": "u"},
    "message": {"message": "m"},
    **{f"code {code!r}": {"code": code, "message": "m"} for code in (None, 0, 200, "201", "ok", "OK", "success", "")},
    "two errors": [{"error": "a"}, {"error": "b"}],
    "array with more": [{"error": "a", "index": 1}],
    "array": [{"generated_text": "m"}],
    "text": "m",
    "null": None,
}


@pytest.mark.parametrize("value", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("alone", [False, True])
def test_some_values_are_errors_everywhere(value: Any, alone: bool) -> None:
    assert reported_error(value, standalone=alone) is not None


@pytest.mark.parametrize("value", ALONE.values(), ids=ALONE)
def test_some_values_are_errors_only_from_a_model_endpoint(value: Any) -> None:
    assert reported_error(value) is None
    assert reported_error(value, standalone=True) is value


@pytest.mark.parametrize("value", NEVER.values(), ids=NEVER)
def test_other_values_are_not_errors(value: Any) -> None:
    assert reported_error(value, standalone=True) is None


# Streams.


def faults(body: bytes, *, from_model: bool = True) -> ProviderFault | None:
    decoder, reader = decoder_for(Shape.SSE, 1 << 20), StreamReader(from_model=from_model)
    for item in [*decoder.feed(body), *decoder.finish()]:
        reader.read(item)
    return reader.fault


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DELTA = data({"choices": [{"index": 0, "delta": {"content": "a"}}]})


@pytest.mark.parametrize("value", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("before", [b"", DELTA + DELTA, b"data: text\n\n"], ids=["first", "chat", "text"])
def test_an_item_of_any_stream_is_an_error(value: Any, before: bytes) -> None:
    assert faults(before + data(value), from_model=False) is not None


@pytest.mark.parametrize("value", ALONE.values(), ids=ALONE)
def test_more_shapes_are_errors_in_the_first_item_of_a_models_stream(value: Any) -> None:
    assert faults(data(value)) is not None
    assert faults(b": wait\n\ndata:\n\n" + data(value)) is not None, "heartbeats are no items"
    assert faults(data(value), from_model=False) is None
    assert faults(b"data: text\n\n" + data(value)) is None
    assert faults(DELTA + data(value)) is None


@pytest.mark.parametrize("value", NEVER.values(), ids=NEVER)
def test_other_items_are_not_errors(value: Any) -> None:
    assert faults(data(value)) is None
    assert faults(DELTA + DELTA + data(value)) is None


FRAMED = {
    "the SSE field error": (b'error: {"code":400,"message":"m","type":"exceed_context_size_error"}\n\n', 400, "m"),
    "without a blank line": (b'error: {"code":503,"message":"m"}\n', 503, "m"),
    "the field with text": (b"error: m\n\n", 500, "m"),
    "an event without data": (b"event: error\n\n", 500, "the provider reported an error without a message"),
    "an event with empty data": (b"event: error\ndata:\n\n", 500, "the provider reported an error without a message"),
    "an event with text": (b"event: error\ndata: m\n\n", 500, "m"),
    "text": (b"data: [ERROR] m\n\n", 500, "[ERROR] m"),
    "a status as a comment": (b'event:error\n:HTTP_STATUS/401\ndata:{"code":"x","message":"m"}\n\n', 401, "m"),
    "a status as a field": (b'event:error\nHTTP_STATUS/429\ndata:{"code":"x","message":"m"}\n\n', 429, "m"),
}


@pytest.mark.parametrize(("body", "status", "message"), FRAMED.values(), ids=FRAMED)
@pytest.mark.parametrize("before", [b"", DELTA + DELTA])
def test_the_framing_reports_errors_too(before: bytes, body: bytes, status: int, message: str) -> None:
    found = faults(before + body)
    assert found is not None
    assert (found.status, found.message) == (status, message)


def test_a_status_comment_below_400_reports_no_error() -> None:
    assert faults(b'event:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"a"}}\n\n') is None


@pytest.mark.parametrize("line", [b"[ERROR] m\n", b'{"error":"m"}\n'])
def test_a_line_of_ndjson_is_an_error(line: bytes) -> None:
    decoder, reader = decoder_for(Shape.NDJSON, 1 << 20), StreamReader()
    for item in [*decoder.feed(b'{"a":1}\n' + line), *decoder.finish()]:
        reader.read(item)
    assert reader.fault is not None


# Bodies in one piece.


@pytest.mark.parametrize("value", [*EVERYWHERE.values(), *ALONE.values()], ids=[*EVERYWHERE, *ALONE])
def test_a_models_body_is_an_error(value: Any) -> None:
    body = json.dumps(value).encode()
    found = parse_response(200, body, "application/json", from_model=True)
    assert found.fault is not None
    assert found.fault.message
    assert parse_response(200, b"\xef\xbb\xbf \n" + body, from_model=True).fault == found.fault


@pytest.mark.parametrize("value", [*EVERYWHERE.values(), *ALONE.values()], ids=[*EVERYWHERE, *ALONE])
def test_a_body_from_another_endpoint_is_data(value: Any) -> None:
    found = parse_response(200, json.dumps(value).encode(), "application/json")
    assert (found.fault, found.defect) == (None, None)


@pytest.mark.parametrize("value", NEVER.values(), ids=NEVER)
def test_other_bodies_are_answers(value: Any) -> None:
    found = parse_response(200, json.dumps(value).encode(), "application/json", from_model=True)
    assert (found.fault, found.defect) == (None, None)


@pytest.mark.parametrize(
    "value",
    [
        {"choices": [], "code": "x", "message": "m"},
        {"candidates": [{"content": {}}], "success": False},
        {"output": {"text": "m"}, "code": "x", "message": "m"},
    ],
)
def test_in_a_known_dialect_fewer_shapes_are_errors(value: Any) -> None:
    is_error = parse_response(200, json.dumps(value).encode(), from_model=True).fault is not None
    assert is_error is (value.get("choices") == [])


def test_a_text_body_is_an_error() -> None:
    found = parse_response(200, b"[ERROR] upstream timed out", "text/plain", from_model=True).fault
    assert found is not None
    assert found.message == "[ERROR] upstream timed out"


@pytest.mark.parametrize("pad", [1, 1 << 21])
def test_a_long_body_is_an_error_too(pad: int) -> None:
    body = json.dumps({"pad": "x" * pad, "error": {"message": "m", "code": 429, "pad": "x" * pad}}).encode()
    assert parse_response(200, body, from_model=True).fault is not None


@pytest.mark.parametrize("body", [b'{"choices":[{"message":{"content":"Hel', b"Hello", b"[1,", b"<html>"])
@pytest.mark.parametrize("from_model", [False, True])
def test_a_body_labelled_json_must_be_json(body: bytes, from_model: bool) -> None:
    for label in ("application/json", "application/problem+json"):
        assert parse_response(200, body, label, from_model=from_model).defect is Defect.NOT_JSON
    assert parse_response(206, body, "application/json", from_model=from_model).defect is None, "it is a part of one"
    assert parse_response(200, body, "text/plain", from_model=from_model).defect is None
    assert parse_response(404, body, "application/json", from_model=from_model).defect is None


def test_an_empty_json_body_is_not_an_answer_of_a_model() -> None:
    assert parse_response(200, b"", "application/json", from_model=True).defect is Defect.NOT_JSON
    assert parse_response(200, b"", "application/json").defect is None
    assert parse_response(204, b"", "application/json", from_model=True).defect is None


def test_an_html_page_is_not_an_answer_of_a_model() -> None:
    assert parse_response(200, b"\n<!doctype html>", "text/html", from_model=True).defect is Defect.HTML
    assert parse_response(200, b"<!doctype html>", "text/html").defect is None
    assert parse_response(200, b'{"choices":[]}', "text/html", from_model=True).defect is None, (
        "only the label is wrong"
    )


# Streams without their end.

AUDIO_IMAGE_THREAD = {
    "transcription": ("transcript.text.delta", "transcript.text.done", False),
    "speech": ("speech.audio.delta", "speech.audio.done", False),
    "image": ("image_generation.partial_image", "image_generation.completed", True),
    "image edit": ("image_edit.partial_image", "image_edit.completed", True),
}


@pytest.mark.parametrize(("part", "last", "finishes"), AUDIO_IMAGE_THREAD.values(), ids=AUDIO_IMAGE_THREAD)
def test_openais_other_streams_end_with_their_last_event(part: str, last: str, finishes: bool) -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    body = data({"type": part, "delta": "a"}) * 2
    assert verdicts(body) == (Verdict.BROKEN, Verdict.BROKEN)
    whole = body + data({"type": last, "usage": usage})
    assert verdicts(whole) == (Verdict.COMPLETE, Verdict.COMPLETE_CUT if finishes else Verdict.COMPLETE)
    assert verdicts(data({"type": last}))[0] is Verdict.COMPLETE


def test_a_second_image_revokes_the_finish_mark() -> None:
    one = data({"type": "image_generation.partial_image"}) + data({"type": "image_generation.completed"})
    assert verdicts(one + data({"type": "image_generation.partial_image"})) == (Verdict.BROKEN, Verdict.BROKEN)
    assert verdicts(one + one)[0] is Verdict.COMPLETE


def thread(event: str, **members: Any) -> bytes:
    return b"event: %s\n" % event.encode() + data(members)


def test_a_run_of_an_assistant_ends_with_its_run_and_done() -> None:
    body = thread("thread.run.created", object="thread.run", status="queued", last_error=None)
    body += thread("thread.message.delta", id="m", delta={})
    assert verdicts(body) == (Verdict.BROKEN, Verdict.BROKEN)
    completed = body + thread("thread.run.completed", object="thread.run", status="completed")
    assert verdicts(completed) == (Verdict.COMPLETE, Verdict.COMPLETE_CUT)
    assert verdicts(completed + b"event: done\ndata: [DONE]\n\n") == (Verdict.COMPLETE, Verdict.COMPLETE)
    error = {"code": "rate_limit_exceeded", "message": "m"}
    found = faults(body + thread("thread.run.failed", object="thread.run", status="failed", last_error=error))
    assert found is not None
    assert (found.status, found.message) == (429, "m")


def verdicts(body: bytes) -> tuple[Verdict, Verdict]:
    """Return the verdicts for a clean end and for a cut."""
    decoder, reader = decoder_for(Shape.SSE, 1 << 20), StreamReader()
    for item in decoder.feed(body):
        reader.read(item)
    clean = reader.verdict(StreamState.END, truncated=False, clean_end_is_complete=False)
    return clean, reader.verdict(StreamState.CUT, truncated=False, clean_end_is_complete=False)
