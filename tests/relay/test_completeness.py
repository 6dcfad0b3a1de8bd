"""`universal.done` is sent only for a complete answer; any other answer ends with an error."""

import asyncio

import pytest

from tests.support.aws_eventstream import event as message
from tests.support.event_harness import (
    COMPLETE,
    DONE,
    FINISH,
    OVERLOADED,
    ROLE,
    USAGE,
    EventHarness,
    ScriptedRuntime,
    content,
    step,
)
from tests.support.event_harness import run as run_event
from tests.support.provider_script import RESET, SILENCE, Part, ScriptedResponse, streams


async def run_complete(*body: Part, slug: str = "openai") -> EventHarness:
    event = await run_event(step(slug), streams(*body))
    assert event.types[-1] == "done"
    assert event.metadata["success"] is True
    return event


async def run_broken(*body: Part) -> EventHarness:
    event = await run_event(step(), streams(*body))
    assert event.types[-1] == "error"
    assert event.metadata["success"] is False
    return event


async def test_a_stream_with_a_closing_mark_is_complete() -> None:
    assert "warnings" not in (await run_complete(*COMPLETE)).metadata


async def test_a_stream_that_is_reset_after_its_closing_mark_is_complete() -> None:
    assert "warnings" not in (await run_complete(*COMPLETE, RESET)).metadata


async def test_a_stream_that_ends_after_its_finish_mark_is_complete() -> None:
    assert "warnings" not in (await run_complete(content("a"), FINISH)).metadata


async def test_a_stream_that_is_cut_after_its_finish_mark_is_complete_with_a_warning() -> None:
    [warning] = (await run_complete(content("a"), FINISH, RESET)).metadata["warnings"]
    assert "usage may be missing" in warning


async def test_a_stream_that_is_cut_after_content_is_broken() -> None:
    event = await run_broken(content("a"), RESET)
    assert event.texts == ["a"]
    error = event.last_frame()["error"]
    assert (error["code"], error["source"], error["retryable"]) == (9016, "provider", True)
    assert "reset" in error["message"]


async def test_a_stream_of_a_known_dialect_without_an_end_mark_is_broken() -> None:
    event = await run_broken(content("a"))
    assert event.code == 9016
    assert event.last_frame()["error"]["message"].endswith("without its end mark")


async def test_a_stream_without_an_end_mark_is_complete_if_its_provider_sends_none() -> None:
    await run_complete(content("a"), slug="custom-markless")


async def test_a_bookkeeping_stream_is_complete_if_its_provider_sends_no_end_mark() -> None:
    """The end counts as the answer: held items are sent, and the step does not fail."""
    responses = streams(ROLE)
    event = await run_event([step("custom-markless"), step()], responses)
    assert event.types == ["created", "stream", "done"]
    assert event.metadata["step"] == "0"


async def test_a_stream_of_an_unknown_dialect_is_complete_at_a_clean_end() -> None:
    event = await run_complete(b"data: one\n\n", b'data: {"two":2}\n\n')
    assert [frame["response"] for frame in event.frames if "response" in frame] == ["one", {"two": 2}]
    assert (await run_broken(b"data: one\n\n", RESET)).code == 9016


async def test_an_incomplete_last_item_makes_the_end_unclean() -> None:
    assert (await run_broken(b"data: one\n\n", b'data: {"two":')).code == 9016


async def test_the_last_item_may_lack_its_blank_line() -> None:
    event = await run_complete(content("a"), FINISH, b"data: [DONE]")
    assert event.types == ["created", "stream", "stream", "done"]


async def test_an_error_may_lack_its_blank_line_too() -> None:
    event = await run_event([step(), step("groq")], streams(OVERLOADED.rstrip()), streams(*COMPLETE))
    assert event.metadata["step"] == "1", "not a complete stream of an unknown dialect"


# Silence.


async def test_a_stream_is_complete_after_two_seconds_of_silence_behind_its_finish_mark() -> None:
    event = await ScriptedRuntime(streams(content("a"), FINISH, SILENCE)).event(step()).start()
    await event.advance(1.9)
    assert not event.is_done
    await event.advance(0.2)
    assert (event.types[-1], event.metadata.get("warnings")) == ("done", None)


async def test_any_byte_restarts_the_silence() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(content("a"), FINISH, gate, USAGE, SILENCE)).event(step()).start()
    await event.advance(1.9)
    await event.release(gate)
    await event.advance(1.9)
    assert not event.is_done
    await event.advance(0.2)
    assert event.metadata["usage"]["inputTokens"] == 3


async def test_content_after_a_finish_mark_revokes_it() -> None:
    gate = asyncio.Event()
    event = (
        await ScriptedRuntime(streams(content("a"), FINISH, gate, content("b"), SILENCE))
        .event(step(idleTimeout=5000))
        .start()
    )
    await event.release(gate)
    await event.advance(4.9)
    assert not event.is_done
    await event.advance(0.2)
    assert (event.types[-1], event.code) == ("error", 9014)


async def test_an_idle_timeout_shorter_than_the_silence_does_not_break_a_finished_answer() -> None:
    event = await ScriptedRuntime(streams(content("a"), FINISH, SILENCE)).event(step(idleTimeout=500)).start()
    await event.advance(1)
    assert not event.is_done, "usage may follow"
    await event.advance(1.1)
    assert event.types[-1] == "done"


async def test_an_event_with_known_usage_ends_at_the_closing_mark() -> None:
    event = await ScriptedRuntime(streams(content("a"), FINISH, USAGE, DONE, SILENCE)).event(step()).start()
    assert event.is_done
    assert event.types[-1] == "done"
    await event.advance(1.1)
    assert event.metadata["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}


async def test_usage_is_awaited_for_100_ms_after_the_closing_mark() -> None:
    event = await ScriptedRuntime(streams(*COMPLETE, SILENCE)).event(step()).start()
    await event.advance(0.09)
    assert not event.is_done
    await event.advance(0.02)
    assert event.types[-1] == "done"


async def test_usage_after_the_closing_mark_is_counted_but_not_relayed() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(*COMPLETE, gate, content("late"), USAGE, SILENCE)).event(step()).start()
    await event.advance(0.05)
    await event.release(gate)
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    await event.advance(1.1)
    assert (event.texts, event.metadata["usage"]["totalTokens"]) == (["Hello"], 5)


async def test_items_after_the_closing_mark_in_the_same_read_are_not_relayed() -> None:
    event = await run_event(step(), streams(b"".join(COMPLETE) + content("late") + USAGE))
    assert (event.texts, event.types[-1]) == (["Hello"], "done")
    assert event.metadata["usage"]["totalTokens"] == 5


async def test_the_rest_of_a_body_is_read_for_at_most_one_second() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    parts: list[Part] = [*COMPLETE[:-1], USAGE, DONE]
    for gate in gates:
        parts += [gate, b": beat\n\n"]
    event = await ScriptedRuntime(streams(*parts, SILENCE)).event(step()).start()
    assert event.types[-1] == "done"
    for gate in gates[:2]:
        await event.advance(0.4)
        await event.release(gate)
    assert not event.runtime.provider.requests[0].closed.is_set()
    await event.advance(0.21)
    assert event.runtime.provider.requests[0].closed.is_set()
    assert not event.runtime.provider.requests[0].was_read_fully


async def test_a_body_that_ends_within_that_second_is_read_fully() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(content("a"), FINISH, USAGE, DONE, gate, b": bye\n\n")).event(step()).start()
    assert event.is_done
    await event.release(gate)
    assert event.runtime.provider.requests[0].was_read_fully


async def test_usage_after_bedrocks_stop_is_counted_and_the_body_read_fully() -> None:
    gate = asyncio.Event()
    stop = message("messageStop", b'{"stopReason":"end_turn"}')
    counts = message("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}')
    text = message("contentBlockDelta", b'{"delta":{"text":"a"}}')
    scripted = streams(text, stop, gate, counts, content_type="application/vnd.amazon.eventstream")
    event = await ScriptedRuntime(scripted).event(step()).start()
    assert not event.is_done
    await event.release(gate)
    assert [frame.get("event") for frame in event.frames] == [
        None,
        "contentBlockDelta",
        "messageStop",
        None,
    ]
    assert (event.types[-1], event.metadata["usage"]["totalTokens"]) == ("done", 3)
    assert event.runtime.provider.requests[0].was_read_fully


@pytest.mark.parametrize("ending", [[DONE], [FINISH]], ids=["closed", "finished"])
async def test_total_timeout_after_a_complete_answer_is_no_error(ending: list[bytes]) -> None:
    event = await ScriptedRuntime(streams(content("a"), *ending, SILENCE)).event(step(totalTimeout=500)).start()
    await event.advance(0.6)
    assert event.types[-1] == "done"


# Errors inside a stream.


async def test_an_error_item_after_the_answer_is_relayed_and_ends_the_event() -> None:
    event = await run_event([step(), step("groq")], streams(content("a"), OVERLOADED, content("dropped")))
    assert event.types == ["created", "stream", "stream", "error"]
    assert event.frames[2]["response"] == {"error": {"message": "too busy", "type": "overloaded_error"}}
    assert event.last_frame()["error"] == {"code": 9017, "message": "too busy", "source": "provider", "retryable": True}
    assert (event.metadata["status"], event.metadata["success"]) == (503, False)


async def test_an_error_item_in_the_read_of_the_answer_ends_the_event() -> None:
    event = await run_event([step(), step("groq")], streams(ROLE + content("a") + OVERLOADED + content("dropped")))
    assert event.types == ["created", "stream", "stream", "stream", "error"]
    assert event.code == 9017


async def test_an_error_item_before_the_answer_fails_the_step() -> None:
    event = await run_event([step(), step("groq")], streams(ROLE, OVERLOADED), streams(*COMPLETE))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert event.metadata["step"] == "1"


async def test_the_last_attempt_relays_an_error_item_without_holding_it() -> None:
    event = await run_event(step(), streams(ROLE, OVERLOADED))
    assert (event.types, event.code) == (["created", "stream", "stream", "error"], 9017)


async def test_a_permanent_error_is_not_retryable() -> None:
    event = await run_event(step(), streams(b'data: {"error":{"type":"invalid_request_error"}}\n\n'))
    assert event.last_frame()["error"]["retryable"] is False


async def test_a_bare_json_error_in_a_stream_fails_the_step() -> None:
    event = await run_event(
        [step(), step("groq")], streams(b'{"error":{"code":400,"message":"no"}}'), streams(*COMPLETE)
    )
    assert [a.get("code") for a in event.metadata["attempts"]] == [9017, None]


# Limits.


async def test_a_too_large_item_breaks_the_answer() -> None:
    runtime = ScriptedRuntime(streams(content("a"), b"data: {" + b" " * 2000), max_item_bytes=1000)
    event = await runtime.event(step()).start()
    assert (event.types, event.code) == (["created", "stream", "error"], 9018)


async def test_a_long_incomplete_item_counts_in_the_memory_budget() -> None:
    gate = asyncio.Event()
    rest = (b"data: {" + b" " * 100_000, gate, b"}\n\n", DONE, SILENCE)
    runtime = ScriptedRuntime(
        streams(content("a"), *rest), streams(content("a"), *rest), max_item_bytes=1 << 20, budget_bytes=150_000
    )
    event = await runtime.event(step()).start()
    assert 100_000 < runtime.budget.used < 101_000
    refused = await runtime.event(step()).start()
    assert (refused.types, refused.frames[-1]["error"]["code"]) == (["created", "stream", "error"], 9008)
    await event.release(gate)
    assert runtime.budget.used < 1000
    await event.advance(0.11)
    await event.advance(1.1)
    assert event.code is None


async def test_the_memory_of_an_incomplete_item_is_released_at_a_break() -> None:
    half = streams(b"data: {" + b" " * 100_000, RESET)
    runtime = ScriptedRuntime(half, half, streams(*COMPLETE), max_item_bytes=1 << 20, budget_bytes=150_000)
    event = await runtime.event([step(), step("groq"), step("mistral")]).start()
    assert [attempt.get("code") for attempt in event.metadata["attempts"]] == [9016, 9016, None]


async def test_a_damaged_aws_event_stream_message_breaks_the_answer() -> None:
    text = message("contentBlockDelta", b'{"delta":{"text":"a"}}')
    damaged = bytearray(text)
    damaged[-10] ^= 1
    scripted = streams(text, bytes(damaged), content_type="application/vnd.amazon.eventstream")
    event = await run_event(step(), scripted)
    assert (event.types, event.code) == (["created", "stream", "error"], 9016)
    assert "CRC" in event.last_frame()["error"]["message"]


# Bodies with a wrong content type.

MISLABELLED = {
    "SSE labelled JSON": (b'data: {"a":1}\n\ndata: {"a":2}\n\n', "application/json", "text/event-stream"),
    "SSE without a label": (b": hello\n\ndata: 1\n\n", "", "text/event-stream"),
    "SSE labelled text": (b"event: x\ndata: 1\n\n", "text/plain", "text/event-stream"),
    "NDJSON labelled JSON": (b'{"a":1}\n{"a":2}\n', "application/json", "application/x-ndjson"),
    "NDJSON labelled SSE": (b'{"a":1}\n{"a":2}\n', "text/event-stream", "application/x-ndjson"),
    "JSON lines": (b'{"a":1}\n', "application/jsonl", "application/jsonl"),
    "a stream of JSON": (b'{"a":1}\n', "application/stream+json", "application/stream+json"),
    "audio": (b"\xff\xf3", "audio/mpeg", "audio/mpeg"),
    "video": (b"\0\0", "video/mp4", "video/mp4"),
}


@pytest.mark.parametrize(("body", "label", "reported"), MISLABELLED.values(), ids=MISLABELLED)
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_stream_is_detected_by_its_content(body: bytes, label: str, reported: str, size: int) -> None:
    reads = [body[at : at + size] for at in range(0, len(body), size)]
    event = await run_event(step(), ScriptedResponse(reads, content_type=label))
    assert event.types[0] == "created"
    assert event.types[-1] == "done"
    assert event.metadata["contentType"] == reported


BUFFERED = {
    "JSON": (b'{"a":1}', "application/json; charset=utf-8", {"a": 1}, "application/json"),
    "pretty JSON": (b'{\n  "a": 1\n}\n', "application/json", {"a": 1}, "application/json"),
    "problem JSON": (b'{"a":1}', "application/problem+json", {"a": 1}, "application/problem+json"),
    "text": (b"hello", "text/plain", "hello", "text/plain"),
    "nothing": (b"", "text/plain", None, "text/plain"),
    "an image": (b"\x89PNG", "image/png", "iVBORw==", "image/png"),
    "no label, not UTF-8": (b"\xff", "", "/w==", ""),
}


@pytest.mark.parametrize(("body", "label", "response", "reported"), BUFFERED.values(), ids=BUFFERED)
async def test_any_other_body_is_a_buffered_answer(body: bytes, label: str, response: object, reported: str) -> None:
    event = await run_event(step(), ScriptedResponse([body] if body else [], content_type=label))
    assert event.types == ["created"]
    assert (event.last_frame()["response"], event.metadata["contentType"]) == (response, reported)


async def test_invalid_json_is_sent_as_text_and_flagged() -> None:
    event = await run_event(step(), ScriptedResponse([b'{"a":'], content_type="application/json"))
    assert (event.last_frame()["response"], event.last_frame()["malformed"]) == ('{"a":', True)
    event = await run_event(step(), streams(b"data: {no}\n\n"))
    assert (event.frames[1]["response"], event.frames[1]["malformed"]) == ("{no}", True)


async def test_a_reset_after_a_complete_stream_in_one_read_is_no_error() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    event = await run_event(step(), streams(content("a") + FINISH + usage + DONE, RESET))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
