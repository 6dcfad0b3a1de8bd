"""An error reported inside an HTTP 200 answer fails the step (`bridge/docs/protocol.md`, "What reports an error")."""

import asyncio

import orjson
import pytest

from tests.support.event_harness import DONE, WHOLE, Frame, House, said, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import RESET, Plays, answers, streams

LIMITED = b'{"error":{"message":"too many","code":429},"user_id":"u"}'
OK = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}'
CHAIN = [step(), step("groq")]
HTML = Plays([b"<html>Sign in</html>"], content_type="text/html")

FAILED = {
    "an error in one piece": answers(LIMITED),
    "Workers AI": answers(b'{"result":null,"success":false,"errors":[{"code":3040,"message":"m"}]}'),
    "text": Plays([b"[ERROR] m"], content_type="text/plain"),
    "truncated JSON": answers(b'{"choices":[{"message":{"content":"Hel'),
    "a page": HTML,
    "an empty body": answers(b""),
    "the SSE field error": streams(b'error: {"code":503,"message":"m"}\n\n', DONE),
    "an event error without data": streams(b"event: error\n\n", DONE),
    "the end mark alone": streams(DONE),
    "comments and the end mark": streams(b": ok\n\n", DONE),
    "heartbeats and the end": streams(b"data:\n\n", b"event: ping\ndata: {}\n\n"),
    "DashScope": streams(b'event:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling","message":"m"}\n\n'),
    "an error after heartbeats": streams(b"data:\n\n" * 100, b'data: {"error":"m"}\n\n'),
    "a bare error under the label of a stream": streams(b'{"detail":"m"}'),
}


@pytest.mark.parametrize("play", FAILED.values(), ids=FAILED)
async def test_the_next_step_is_tried(play: Plays) -> None:
    stage = await run_event(CHAIN, play, answers(OK))
    assert (stage.types, stage.metadata["step"]) == (["created"], "1")
    assert stage.last()["response"] == orjson.loads(OK)


@pytest.mark.parametrize("play", FAILED.values(), ids=FAILED)
async def test_alone_it_is_the_events_failure(play: Plays) -> None:
    stage = await run_event(step(), play)
    assert stage.metadata["success"] is False
    assert stage.code is not None


async def test_the_body_is_the_answer_with_the_status_that_it_stands_for() -> None:
    stage = await run_event(step(), answers(LIMITED))
    assert stage.last()["response"] == orjson.loads(LIMITED)
    assert stage.metadata["status"] == 429
    assert stage.last()["error"] == {"code": 429, "message": "too many", "source": "provider", "retryable": True}


async def test_a_body_that_does_not_parse_is_an_unusable_answer() -> None:
    stage = await run_event(step(), answers(b'{"choices":['))
    assert (stage.last()["response"], stage.last()["malformed"]) == ('{"choices":[', True)
    assert (stage.code, stage.metadata["status"]) == (9019, 200)


TRIES = {
    "429": (answers(LIMITED), 2),
    "401": (answers(b'{"code":"InvalidApiKey","message":"m"}'), 1),
    "no known word": (answers(b'{"error":{"type":"unheard_of"}}'), 2),
    "429 as a comment": (streams(b'event:error\n:HTTP_STATUS/429\ndata:{"code":"x","message":"m"}\n\n'), 2),
    "401 as a comment": (streams(b'event:error\n:HTTP_STATUS/401\ndata:{"code":"x","message":"m"}\n\n'), 1),
    "truncated JSON": (answers(b'{"choices":['), 2),
    "a page": (HTML, 1),
    "the end mark alone": (streams(DONE), 2),
}


@pytest.mark.parametrize(("play", "tries"), TRIES.values(), ids=TRIES)
async def test_it_is_retried_as_its_status_asks(play: Plays, tries: int) -> None:
    steps = [step(maxAttempts=2, retryDelay=0), step("groq")]
    stage = await run_event(steps, *[play] * tries, answers(OK))
    assert [attempt["step"] for attempt in stage.metadata["attempts"]] == ["0"] * tries + ["1"]


@pytest.mark.parametrize(
    ("method", "endpoint"), [("GET", "v1/responses/r"), ("GET", "v1/batches/b"), ("POST", "v1/files")]
)
async def test_elsewhere_a_member_error_is_data(method: str, endpoint: str) -> None:
    asked: Frame = {"provider": "openai", "endpoint": endpoint, "method": method}
    stage = await run_event(asked, answers(b'{"status":"failed","error":{"message":"m"}}'))
    assert (stage.metadata["success"], stage.metadata["status"]) == (True, 200)


async def test_an_error_in_a_stream_tells_its_status_in_the_last_frame() -> None:
    stage = await run_event(step(), streams(said("a"), b'data: {"error":{"code":429,"message":"m"}}\n\n'))
    assert (stage.frames[0]["metadata"]["status"], stage.metadata["status"]) == (200, 429)
    assert stage.code == 9017


async def test_a_stream_that_failed_before_its_answer_tells_its_status() -> None:
    plays = streams(b'data: {"error":{"code":429,"message":"m"}}\n\n'), Plays(waiting=[RESET])
    stage = await run_event([step(), step("groq")], *plays)
    assert (stage.code, stage.metadata["success"]) == (9012, False)
    refused = streams(b'data: {"error":{"code":"content_filter","message":"m"}}\n\n')
    stage = await run_event(CHAIN, refused)
    assert stage.metadata["status"] == 400


async def test_a_malformed_item_is_passed_on_with_a_warning() -> None:
    stage = await run_event(step(), streams(*WHOLE[:-1], b'data: {"a":\n\n', b"data: \xff\n\n", DONE))
    assert [frame["response"] for frame in stage.frames if frame.get("malformed")] == ['{"a":', "\ufffd"]
    assert stage.metadata["warnings"] == ["2 items of the stream could not be parsed and came as text"]


async def test_a_heartbeat_starts_no_clock_and_does_not_stop_the_one_for_the_answer() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    parts = [part for gate in gates for part in (b'data: {"type":"keepalive"}\n\n', gate)]
    runtime = House(streams(*parts, *WHOLE), answers(OK))
    stage = await runtime.event([step(requestTimeout=25_000), step("groq")]).begin()
    for gate in gates[:2]:
        await stage.pass_s(11)
        await stage.open(gate)
    assert stage.types == []
    await stage.pass_s(4)
    assert (stage.metadata["step"], stage.metadata["attempts"][0]["code"]) == ("1", 9013)
