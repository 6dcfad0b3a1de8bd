"""`onBreak: "restart"`: a broken answer starts again on the next step, and the client drops the earlier frames."""

import asyncio

import pytest

from tests.support.event_harness import COMPLETE, OVERLOADED, ROLE, Frame, ScriptedRuntime, content, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import JSON, RESET, SILENCE, ScriptedResponse, answers, refuses, streams

RESTARTS = step(onBreak="restart")
OTHER = step("groq")
BROKEN = streams(content("lost"), RESET)
POLICY = b'{"error":{"code":"content_policy_violation","message":"not that"}}'


async def test_a_break_is_an_error_by_default() -> None:
    event = await run_event([step(), OTHER], BROKEN)
    assert (event.types, event.code) == (["created", "stream", "error"], 9016)


BREAKS: dict[str, ScriptedResponse] = {
    "cut": BROKEN,
    "ended without its end mark": streams(content("lost")),
    "an error inside": streams(content("lost"), OVERLOADED),
    "an item too large": streams(content("lost"), b"data: {" + b" " * 2000),
}


@pytest.mark.parametrize("scripted", BREAKS.values(), ids=BREAKS)
async def test_a_break_restarts_on_the_next_step(scripted: ScriptedResponse) -> None:
    runtime = ScriptedRuntime(scripted, streams(*COMPLETE), max_item_bytes=1000)
    event = await runtime.event([RESTARTS, OTHER]).start()
    starts = [frame for frame in event.frames if frame["type"] == "universal.created"]
    assert [start["metadata"]["step"] for start in starts] == ["0", "1"]
    assert "restarted" not in starts[0]["metadata"]
    assert starts[1]["metadata"]["restarted"] is True
    assert event.texts == ["lost", "Hello"]
    assert event.types[-4:] == ["stream", "stream", "stream", "done"]
    assert (event.metadata["step"], event.metadata["restarted"]) == ("1", True)


async def test_an_idle_timeout_restarts_on_the_next_step() -> None:
    runtime = ScriptedRuntime(streams(content("lost"), SILENCE), streams(*COMPLETE))
    event = await runtime.event([step(onBreak="restart", idleTimeout=1000), OTHER]).start()
    await event.advance(1.1)
    assert (event.types[-1], event.metadata["restarted"]) == ("done", True)


async def test_an_error_item_is_relayed_before_the_restart() -> None:
    event = await run_event([RESTARTS, OTHER], streams(content("lost"), OVERLOADED), streams(*COMPLETE))
    assert event.frames[2]["response"]["error"]["type"] == "overloaded_error"


async def test_a_break_does_not_restart_on_the_same_step() -> None:
    event = await run_event([step(onBreak="restart", maxAttempts=5), OTHER], BROKEN, streams(*COMPLETE))
    assert [a["step"] for a in event.metadata["attempts"]] == ["0", "1"]


async def test_a_break_on_the_last_step_is_an_error() -> None:
    event = await run_event([RESTARTS], BROKEN)
    assert (event.types, event.code) == (["created", "stream", "error"], 9016)
    event = await run_event([RESTARTS, RESTARTS], BROKEN, BROKEN)
    assert (event.types, event.code) == (["created", "stream", "created", "stream", "error"], 9016)
    assert (event.metadata["step"], event.metadata["restarted"]) == ("1", True)


async def test_the_on_break_setting_of_the_broken_step_applies() -> None:
    event = await run_event([RESTARTS, step("groq"), step("mistral")], BROKEN, BROKEN)
    assert (event.code, event.metadata["step"]) == (9016, "1")


LATER_FAILURES: dict[str, tuple[ScriptedResponse, int]] = {
    "a refused connection": (refuses(), 9010),
    "an HTTP error": (answers(b'{"error":{"message":"no"}}', 401), 401),
    "a redirect": (answers(b"", 302), 9019),
    "a broken stream": (streams(ROLE, RESET), 9016),
    "an empty stream": (streams(), 9016),
}


@pytest.mark.parametrize(("scripted", "code"), LATER_FAILURES.values(), ids=LATER_FAILURES)
@pytest.mark.parametrize("steps", [[RESTARTS, OTHER], [RESTARTS, OTHER, step("mistral")]], ids=["last", "not last"])
async def test_a_failed_restart_is_an_error(scripted: ScriptedResponse, code: int, steps: list[Frame]) -> None:
    event = await run_event(steps, BROKEN, *[scripted] * (len(steps) - 1))
    assert event.types[-1] == "error"
    assert event.code == code
    assert "response" not in event.last_frame()
    assert [a.get("code") for a in event.metadata["attempts"]] == [9016, *[code] * (len(steps) - 1)]


async def test_a_failed_restart_discards_an_earlier_buffered_answer() -> None:
    steps = [step(), step("groq", onBreak="restart"), step("mistral")]
    event = await run_event(steps, answers(status=503), BROKEN, refuses())
    assert (event.types, event.code) == (["created", "stream", "error"], 9010)


async def test_a_buffered_answer_after_a_restart_is_a_created_frame() -> None:
    broken = streams(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":9}}\n\n', RESET)
    event = await run_event([RESTARTS, OTHER], broken, answers())
    assert event.types == ["created", "stream", "created"]
    assert event.last_frame()["response"] == {"ok": True}
    assert (event.metadata["restarted"], event.metadata["step"], event.metadata["success"]) == (True, "1", True)
    assert "usage" not in event.metadata, "usage of the broken stream"


async def test_a_policy_refusal_after_a_restart_is_a_created_frame() -> None:
    event = await run_event([RESTARTS, OTHER], BROKEN, ScriptedResponse([POLICY], 400, JSON))
    assert event.types == ["created", "stream", "created"]
    assert (event.code, event.metadata["restarted"]) == (400, True)


async def test_a_restart_skips_steps_that_fail_before_their_answer() -> None:
    steps = [RESTARTS, step("groq"), step("mistral")]
    event = await run_event(steps, BROKEN, streams(ROLE, RESET), streams(*COMPLETE))
    assert [frame["metadata"]["step"] for frame in event.frames if frame["type"] == "universal.created"] == ["0", "2"]
    assert event.code is None


async def test_total_timeout_does_not_restart() -> None:
    runtime = ScriptedRuntime(streams(content("a"), SILENCE))
    event = await runtime.event([step(onBreak="restart", totalTimeout=1000), OTHER]).start()
    await event.advance(1.1)
    assert event.code == 9015


async def test_a_restarted_step_has_its_own_timeouts() -> None:
    gate = asyncio.Event()
    runtime = ScriptedRuntime(streams(content("a"), gate, RESET), ScriptedResponse(before_head=[SILENCE]))
    config = {"requestTimeout": 1000}
    event = await runtime.event([step(onBreak="restart", **config), step("groq", **config)]).start()
    await event.advance(100)
    await event.release(gate)
    await event.advance(0.9)
    assert not event.is_done
    await event.advance(0.2)
    assert event.code == 9013
