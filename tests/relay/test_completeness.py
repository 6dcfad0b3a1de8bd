"""`universal.done` is a promise that the answer is whole; what is not whole ends with an error."""

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

WARNING = "the connection was cut after the answer's end; usage may be missing"


async def whole(*body: Part, slug: str = "openai") -> EventHarness:
    event = await run_event(step(slug), streams(*body))
    assert event.types[-1] == "done"
    assert event.metadata["success"] is True
    return event


async def broken(*body: Part) -> EventHarness:
    event = await run_event(step(), streams(*body))
    assert event.types[-1] == "error"
    assert event.metadata["success"] is False
    return event


async def test_a_stream_with_its_closing_mark_is_whole() -> None:
    assert "warnings" not in (await whole(*COMPLETE)).metadata


async def test_it_is_whole_even_if_the_connection_is_reset_after_the_closing_mark() -> None:
    assert "warnings" not in (await whole(*COMPLETE, RESET)).metadata


async def test_a_stream_that_ends_after_its_finish_mark_is_whole() -> None:
    assert "warnings" not in (await whole(content("a"), FINISH)).metadata


async def test_one_that_is_cut_after_its_finish_mark_is_whole_with_a_warning() -> None:
    assert (await whole(content("a"), FINISH, RESET)).metadata["warnings"] == [WARNING]


async def test_one_that_is_cut_after_content_is_broken() -> None:
    event = await broken(content("a"), RESET)
    assert event.texts == ["a"]
    assert event.last_frame()["error"] == {
        "code": 9016,
        "message": "the provider's stream was cut: the provider reset the connection",
        "source": "provider",
        "retryable": True,
    }


async def test_one_of_a_known_dialect_that_ends_without_a_mark_is_broken() -> None:
    event = await broken(content("a"))
    assert event.code == 9016
    assert event.last_frame()["error"]["message"] == "the provider's stream ended without its end mark"


async def test_unless_its_provider_is_known_to_end_without_one() -> None:
    await whole(content("a"), slug="custom-markless")


async def test_an_end_without_a_mark_is_then_the_end_mark_also_where_nothing_was_said() -> None:
    """The step answers by its end: nothing held back is lost, and the client is told of the stream."""
    responses = streams(ROLE)
    event = await run_event([step("custom-markless"), step()], responses)
    assert event.types == ["created", "stream", "done"]
    assert event.metadata["step"] == "0"


async def test_one_of_no_known_dialect_is_whole_when_the_body_ends_cleanly() -> None:
    event = await whole(b"data: one\n\n", b'data: {"two":2}\n\n')
    assert [frame["response"] for frame in event.frames if "response" in frame] == ["one", {"two": 2}]
    assert (await broken(b"data: one\n\n", RESET)).code == 9016


async def test_bytes_that_make_no_item_break_an_end_that_would_be_clean() -> None:
    assert (await broken(b"data: one\n\n", b'data: {"two":')).code == 9016


async def test_the_last_item_may_lack_its_blank_line() -> None:
    event = await whole(content("a"), FINISH, b"data: [DONE]")
    assert event.types == ["created", "stream", "stream", "done"]


async def test_an_error_may_lack_its_blank_line_too() -> None:
    event = await run_event([step(), step("groq")], streams(OVERLOADED.rstrip()), streams(*COMPLETE))
    assert event.metadata["step"] == "1", "it is no whole stream of an unknown dialect"


# Silence.


async def test_two_seconds_of_silence_after_the_finish_mark_make_it_whole() -> None:
    event = await ScriptedRuntime(streams(content("a"), FINISH, SILENCE)).event(step()).start()
    await event.advance(1.9)
    assert not event.is_done
    await event.advance(0.2)
    assert (event.types[-1], event.metadata.get("warnings")) == ("done", None)


async def test_any_byte_ends_that_silence() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(content("a"), FINISH, gate, USAGE, SILENCE)).event(step()).start()
    await event.advance(1.9)
    await event.release(gate)
    await event.advance(1.9)
    assert not event.is_done
    await event.advance(0.2)
    assert event.metadata["usage"]["inputTokens"] == 3


async def test_a_choice_that_goes_on_had_not_finished() -> None:
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
    assert not event.is_done, "usage may yet come"
    await event.advance(1.1)
    assert event.types[-1] == "done"


async def test_with_usage_known_the_event_ends_at_the_closing_mark() -> None:
    event = await ScriptedRuntime(streams(content("a"), FINISH, USAGE, DONE, SILENCE)).event(step()).start()
    assert event.is_done
    assert event.types[-1] == "done"
    await event.advance(1.1)
    assert event.metadata["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}


async def test_without_usage_it_waits_for_it_a_tenth_of_a_second() -> None:
    event = await ScriptedRuntime(streams(*COMPLETE, SILENCE)).event(step()).start()
    await event.advance(0.09)
    assert not event.is_done
    await event.advance(0.02)
    assert event.types[-1] == "done"


async def test_usage_that_comes_in_that_time_is_counted_and_nothing_is_relayed() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(*COMPLETE, gate, content("late"), USAGE, SILENCE)).event(step()).start()
    await event.advance(0.05)
    await event.release(gate)
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    await event.advance(1.1)
    assert (event.texts, event.metadata["usage"]["totalTokens"]) == (["Hello"], 5)


async def test_what_comes_behind_the_closing_mark_in_one_read_is_not_relayed() -> None:
    event = await run_event(step(), streams(b"".join(COMPLETE) + content("late") + USAGE))
    assert (event.texts, event.types[-1]) == (["Hello"], "done")
    assert event.metadata["usage"]["totalTokens"] == 5


async def test_after_the_closing_mark_the_rest_is_read_for_one_second_at_most() -> None:
    beats = [asyncio.Event() for _ in range(3)]
    parts: list[Part] = [*COMPLETE[:-1], USAGE, DONE]
    for beat in beats:
        parts += [beat, b": beat\n\n"]
    event = await ScriptedRuntime(streams(*parts, SILENCE)).event(step()).start()
    assert event.types[-1] == "done"
    for beat in beats[:2]:
        await event.advance(0.4)
        await event.release(beat)
    assert not event.runtime.provider.requests[0].closed.is_set()
    await event.advance(0.21)
    assert event.runtime.provider.requests[0].closed.is_set()
    assert not event.runtime.provider.requests[0].was_read_fully


async def test_a_connection_whose_answer_ends_in_that_second_is_kept() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(content("a"), FINISH, USAGE, DONE, gate, b": bye\n\n")).event(step()).start()
    assert event.is_done
    await event.release(gate)
    assert event.runtime.provider.requests[0].was_read_fully


async def test_counts_that_follow_the_closing_mark_in_time_count_and_the_connection_is_kept() -> None:
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
async def test_an_event_that_runs_out_of_time_behind_a_complete_answer_is_done(ending: list[bytes]) -> None:
    event = await ScriptedRuntime(streams(content("a"), *ending, SILENCE)).event(step(totalTimeout=500)).start()
    await event.advance(0.6)
    assert event.types[-1] == "done"


# Errors inside a stream.


async def test_an_error_after_an_answer_is_relayed_untouched_and_then_ends_the_event() -> None:
    event = await run_event([step(), step("groq")], streams(content("a"), OVERLOADED, content("never")))
    assert event.types == ["created", "stream", "stream", "error"]
    assert event.frames[2]["response"] == {"error": {"message": "too busy", "type": "overloaded_error"}}
    assert event.last_frame()["error"] == {"code": 9017, "message": "too busy", "source": "provider", "retryable": True}
    assert (event.metadata["status"], event.metadata["success"]) == (503, False)


async def test_also_when_answer_and_error_come_in_one_read() -> None:
    event = await run_event([step(), step("groq")], streams(ROLE + content("a") + OVERLOADED + content("never")))
    assert event.types == ["created", "stream", "stream", "stream", "error"]
    assert event.code == 9017


async def test_an_error_before_an_answer_is_a_failed_step() -> None:
    event = await run_event([step(), step("groq")], streams(ROLE, OVERLOADED), streams(*COMPLETE))
    assert event.types == ["created", "stream", "stream", "stream", "done"]
    assert event.metadata["step"] == "1"


async def test_on_the_last_attempt_nothing_is_held_so_the_error_is_relayed_first() -> None:
    event = await run_event(step(), streams(ROLE, OVERLOADED))
    assert (event.types, event.code) == (["created", "stream", "stream", "error"], 9017)


async def test_an_error_that_trying_again_does_not_help_says_so() -> None:
    event = await run_event(step(), streams(b'data: {"error":{"type":"invalid_request_error"}}\n\n'))
    assert event.last_frame()["error"]["retryable"] is False


async def test_a_stream_that_holds_a_bare_json_error_is_that_error() -> None:
    event = await run_event(
        [step(), step("groq")], streams(b'{"error":{"code":400,"message":"no"}}'), streams(*COMPLETE)
    )
    assert [a.get("code") for a in event.metadata["attempts"]] == [9017, None]


# What cannot be taken.


async def test_an_item_that_is_too_large_breaks_the_answer() -> None:
    runtime = ScriptedRuntime(streams(content("a"), b"data: {" + b" " * 2000), max_item_bytes=1000)
    event = await runtime.event(step()).start()
    assert (event.types, event.code) == (["created", "stream", "error"], 9018)


async def test_an_item_that_is_long_in_coming_counts_in_the_budget() -> None:
    gate = asyncio.Event()
    rest = (b"data: {" + b" " * 100_000, gate, b"}\n\n", DONE, SILENCE)
    runtime = ScriptedRuntime(
        streams(content("a"), *rest), streams(content("a"), *rest), max_item_bytes=1 << 20, budget_bytes=150_000
    )
    event = await runtime.event(step()).start()
    assert 100_000 < runtime.budget.used < 101_000
    crowded = await runtime.event(step()).start()
    assert (crowded.types, crowded.frames[-1]["error"]["code"]) == (["created", "stream", "error"], 9008)
    await event.release(gate)
    assert runtime.budget.used < 1000
    await event.advance(0.11)
    await event.advance(1.1)
    assert event.code is None


async def test_and_is_given_back_when_it_never_came() -> None:
    half = streams(b"data: {" + b" " * 100_000, RESET)
    runtime = ScriptedRuntime(half, half, streams(*COMPLETE), max_item_bytes=1 << 20, budget_bytes=150_000)
    event = await runtime.event([step(), step("groq"), step("mistral")]).start()
    assert [attempt.get("code") for attempt in event.metadata["attempts"]] == [9016, 9016, None]


async def test_a_damaged_message_of_an_aws_event_stream_breaks_the_answer() -> None:
    text = message("contentBlockDelta", b'{"delta":{"text":"a"}}')
    damaged = bytearray(text)
    damaged[-10] ^= 1
    scripted = streams(text, bytes(damaged), content_type="application/vnd.amazon.eventstream")
    event = await run_event(step(), scripted)
    assert (event.types, event.code) == (["created", "stream", "error"], 9016)
    assert "CRC" in event.last_frame()["error"]["message"]


# Bodies that are not what they are called.

MISLABELLED = {
    "SSE called JSON": (b'data: {"a":1}\n\ndata: {"a":2}\n\n', "application/json", "text/event-stream"),
    "SSE without a name": (b": hello\n\ndata: 1\n\n", "", "text/event-stream"),
    "SSE called text": (b"event: x\ndata: 1\n\n", "text/plain", "text/event-stream"),
    "NDJSON called JSON": (b'{"a":1}\n{"a":2}\n', "application/json", "application/x-ndjson"),
    "NDJSON called SSE": (b'{"a":1}\n{"a":2}\n', "text/event-stream", "application/x-ndjson"),
    "JSON lines": (b'{"a":1}\n', "application/jsonl", "application/jsonl"),
    "a stream of JSON": (b'{"a":1}\n', "application/stream+json", "application/stream+json"),
    "audio": (b"\xff\xf3", "audio/mpeg", "audio/mpeg"),
    "video": (b"\0\0", "video/mp4", "video/mp4"),
}


@pytest.mark.parametrize(("body", "called", "told"), MISLABELLED.values(), ids=MISLABELLED)
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_stream_is_told_by_what_it_holds(body: bytes, called: str, told: str, size: int) -> None:
    reads = [body[at : at + size] for at in range(0, len(body), size)]
    event = await run_event(step(), ScriptedResponse(reads, content_type=called))
    assert event.types[0] == "created"
    assert event.types[-1] == "done"
    assert event.metadata["contentType"] == told


IN_ONE_PIECE = {
    "JSON": (b'{"a":1}', "application/json; charset=utf-8", {"a": 1}, "application/json"),
    "pretty JSON": (b'{\n  "a": 1\n}\n', "application/json", {"a": 1}, "application/json"),
    "problem JSON": (b'{"a":1}', "application/problem+json", {"a": 1}, "application/problem+json"),
    "text": (b"hello", "text/plain", "hello", "text/plain"),
    "nothing": (b"", "text/plain", None, "text/plain"),
    "an image": (b"\x89PNG", "image/png", "iVBORw==", "image/png"),
    "no name, no text": (b"\xff", "", "/w==", ""),
}


@pytest.mark.parametrize(("body", "called", "response", "told"), IN_ONE_PIECE.values(), ids=IN_ONE_PIECE)
async def test_all_else_is_one_answer(body: bytes, called: str, response: object, told: str) -> None:
    event = await run_event(step(), ScriptedResponse([body] if body else [], content_type=called))
    assert event.types == ["created"]
    assert (event.last_frame()["response"], event.metadata["contentType"]) == (response, told)


async def test_a_body_that_is_no_json_after_all_is_text_and_marked() -> None:
    event = await run_event(step(), ScriptedResponse([b'{"a":'], content_type="application/json"))
    assert (event.last_frame()["response"], event.last_frame()["malformed"]) == ('{"a":', True)
    event = await run_event(step(), streams(b"data: {no}\n\n"))
    assert (event.frames[1]["response"], event.frames[1]["malformed"]) == ("{no}", True)
