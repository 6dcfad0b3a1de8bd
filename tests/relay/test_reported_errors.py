"""An error reported inside an HTTP 200 answer fails the step (`bridge/docs/protocol.md`, "What reports an error")."""

import asyncio

import orjson
import pytest

from tests.support.event_harness import COMPLETE, DONE, Frame, ScriptedRuntime, content, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import RESET, ScriptedResponse, answers, streams

LIMITED = b'{"error":{"message":"too many","code":429},"user_id":"u"}'
OK = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}'
CHAIN = [step(), step("groq")]
HTML = ScriptedResponse([b"<html>Sign in</html>"], content_type="text/html")

FAILED = {
    "an error in one piece": answers(LIMITED),
    "Workers AI": answers(b'{"result":null,"success":false,"errors":[{"code":3040,"message":"m"}]}'),
    "text": ScriptedResponse([b"[ERROR] m"], content_type="text/plain"),
    "truncated JSON": answers(b'{"choices":[{"message":{"content":"Hel'),
    "an HTML page": HTML,
    "an empty body": answers(b""),
    "the SSE field error": streams(b'error: {"code":503,"message":"m"}\n\n', DONE),
    "an event error without data": streams(b"event: error\n\n", DONE),
    "the end mark alone": streams(DONE),
    "comments and the end mark": streams(b": ok\n\n", DONE),
    "heartbeats and the end": streams(b"data:\n\n", b"event: ping\ndata: {}\n\n"),
    "DashScope": streams(b'event:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling","message":"m"}\n\n'),
    "an error after heartbeats": streams(b"data:\n\n" * 100, b'data: {"error":"m"}\n\n'),
    "a bare error labelled as a stream": streams(b'{"detail":"m"}'),
}


@pytest.mark.parametrize("scripted", FAILED.values(), ids=FAILED)
async def test_a_reported_error_goes_to_the_next_step(scripted: ScriptedResponse) -> None:
    event = await run_event(CHAIN, scripted, answers(OK))
    assert (event.types, event.metadata["step"]) == (["created"], "1")
    assert event.last_frame()["response"] == orjson.loads(OK)


@pytest.mark.parametrize("scripted", FAILED.values(), ids=FAILED)
async def test_a_reported_error_on_the_only_step_fails_the_event(scripted: ScriptedResponse) -> None:
    event = await run_event(step(), scripted)
    assert event.metadata["success"] is False
    assert event.code is not None


async def test_a_reported_errors_body_is_the_answer_with_its_meant_status() -> None:
    event = await run_event(step(), answers(LIMITED))
    assert event.last_frame()["response"] == orjson.loads(LIMITED)
    assert event.metadata["status"] == 429
    assert event.last_frame()["error"] == {"code": 429, "message": "too many", "source": "provider", "retryable": True}


async def test_an_invalid_json_body_is_an_unusable_answer() -> None:
    event = await run_event(step(), answers(b'{"choices":['))
    assert (event.last_frame()["response"], event.last_frame()["malformed"]) == ('{"choices":[', True)
    assert (event.code, event.metadata["status"]) == (9019, 200)


TRIES = {
    "429": (answers(LIMITED), 2),
    "401": (answers(b'{"code":"InvalidApiKey","message":"m"}'), 1),
    "an unknown error type": (answers(b'{"error":{"type":"unheard_of"}}'), 2),
    "429 as a comment": (streams(b'event:error\n:HTTP_STATUS/429\ndata:{"code":"x","message":"m"}\n\n'), 2),
    "401 as a comment": (streams(b'event:error\n:HTTP_STATUS/401\ndata:{"code":"x","message":"m"}\n\n'), 1),
    "truncated JSON": (answers(b'{"choices":['), 2),
    "an HTML page": (HTML, 1),
    "the end mark alone": (streams(DONE), 2),
}


@pytest.mark.parametrize(("scripted", "attempts"), TRIES.values(), ids=TRIES)
async def test_a_reported_error_is_retried_according_to_its_status(scripted: ScriptedResponse, attempts: int) -> None:
    steps = [step(maxAttempts=2, retryDelay=0), step("groq")]
    event = await run_event(steps, *[scripted] * attempts, answers(OK))
    assert [attempt["step"] for attempt in event.metadata["attempts"]] == ["0"] * attempts + ["1"]


@pytest.mark.parametrize(
    ("method", "endpoint"), [("GET", "v1/responses/r"), ("GET", "v1/batches/b"), ("POST", "v1/files")]
)
async def test_a_member_error_outside_model_answers_is_data(method: str, endpoint: str) -> None:
    request: Frame = {"provider": "openai", "endpoint": endpoint, "method": method}
    event = await run_event(request, answers(b'{"status":"failed","error":{"message":"m"}}'))
    assert (event.metadata["success"], event.metadata["status"]) == (True, 200)


async def test_the_last_frame_has_the_status_of_an_error_in_a_stream() -> None:
    event = await run_event(step(), streams(content("a"), b'data: {"error":{"code":429,"message":"m"}}\n\n'))
    assert (event.frames[0]["metadata"]["status"], event.metadata["status"]) == (200, 429)
    assert event.code == 9017


async def test_the_last_frame_has_the_status_of_an_error_before_the_answer() -> None:
    responses = streams(b'data: {"error":{"code":429,"message":"m"}}\n\n'), ScriptedResponse(before_head=[RESET])
    event = await run_event([step(), step("groq")], *responses)
    assert (event.code, event.metadata["success"]) == (9012, False)
    refused = streams(b'data: {"error":{"code":"content_filter","message":"m"}}\n\n')
    event = await run_event(CHAIN, refused)
    assert event.metadata["status"] == 400


async def test_a_malformed_item_is_passed_on_with_a_warning() -> None:
    event = await run_event(step(), streams(*COMPLETE[:-1], b'data: {"a":\n\n', b"data: \xff\n\n", DONE))
    assert [frame["response"] for frame in event.frames if frame.get("malformed")] == ['{"a":', "\ufffd"]
    [warning] = event.metadata["warnings"]
    assert warning.startswith("2 items")


async def test_a_heartbeat_neither_starts_the_hold_nor_stops_request_timeout() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    parts = [part for gate in gates for part in (b'data: {"type":"keepalive"}\n\n', gate)]
    runtime = ScriptedRuntime(streams(*parts, *COMPLETE), answers(OK))
    event = await runtime.event([step(requestTimeout=25_000), step("groq")]).start()
    for gate in gates[:2]:
        await event.advance(11)
        await event.release(gate)
    assert event.types == []
    await event.advance(4)
    assert (event.metadata["step"], event.metadata["attempts"][0]["code"]) == ("1", 9013)
