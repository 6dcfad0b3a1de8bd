"""`onBreak: "restart"`: an answer that broke begins anew on the next step; the client is told to drop what it had."""

import asyncio

import pytest

from tests.support.event_harness import OVERLOADED, ROLE, WHOLE, Frame, House, said, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import JSON, RESET, SILENCE, Plays, answers, refuses, streams

RESTARTS = step(onBreak="restart")
OTHER = step("groq")
BROKEN = streams(said("lost"), RESET)
POLICY = b'{"error":{"code":"content_policy_violation","message":"not that"}}'


async def test_by_default_a_break_is_an_error() -> None:
    stage = await run_event([step(), OTHER], BROKEN)
    assert (stage.types, stage.code) == (["created", "stream", "error"], 9016)


BREAKS: dict[str, Plays] = {
    "cut": BROKEN,
    "ended without its end mark": streams(said("lost")),
    "an error inside": streams(said("lost"), OVERLOADED),
    "an item too large": streams(said("lost"), b"data: {" + b" " * 2000),
}


@pytest.mark.parametrize("play", BREAKS.values(), ids=BREAKS)
async def test_the_next_step_starts_from_scratch(play: Plays) -> None:
    runtime = House(play, streams(*WHOLE), max_item_bytes=1000)
    stage = await runtime.event([RESTARTS, OTHER]).begin()
    starts = [frame for frame in stage.frames if frame["type"] == "universal.created"]
    assert [start["metadata"]["step"] for start in starts] == ["0", "1"]
    assert "restarted" not in starts[0]["metadata"]
    assert starts[1]["metadata"]["restarted"] is True
    assert stage.texts == ["lost", "Hello"]
    assert stage.types[-4:] == ["stream", "stream", "stream", "done"]
    assert (stage.metadata["step"], stage.metadata["restarted"]) == ("1", True)


async def test_a_silence_is_a_break_too() -> None:
    runtime = House(streams(said("lost"), SILENCE), streams(*WHOLE))
    stage = await runtime.event([step(onBreak="restart", idleTimeout=1000), OTHER]).begin()
    await stage.pass_s(1.1)
    assert (stage.types[-1], stage.metadata["restarted"]) == ("done", True)


async def test_an_error_item_is_relayed_before_the_restart() -> None:
    stage = await run_event([RESTARTS, OTHER], streams(said("lost"), OVERLOADED), streams(*WHOLE))
    assert stage.frames[2]["response"]["error"]["type"] == "overloaded_error"


async def test_it_never_restarts_on_the_same_step() -> None:
    stage = await run_event([step(onBreak="restart", maxAttempts=5), OTHER], BROKEN, streams(*WHOLE))
    assert [a["step"] for a in stage.metadata["attempts"]] == ["0", "1"]


async def test_a_break_on_the_last_step_is_an_error() -> None:
    stage = await run_event([RESTARTS], BROKEN)
    assert (stage.types, stage.code) == (["created", "stream", "error"], 9016)
    stage = await run_event([RESTARTS, RESTARTS], BROKEN, BROKEN)
    assert (stage.types, stage.code) == (["created", "stream", "created", "stream", "error"], 9016)
    assert (stage.metadata["step"], stage.metadata["restarted"]) == ("1", True)


async def test_on_break_is_that_of_the_step_that_broke() -> None:
    stage = await run_event([RESTARTS, step("groq"), step("mistral")], BROKEN, BROKEN)
    assert (stage.code, stage.metadata["step"]) == (9016, "1")


LATER: dict[str, tuple[Plays, int]] = {
    "a refused connection": (refuses(), 9010),
    "an HTTP error": (answers(b'{"error":{"message":"no"}}', 401), 401),
    "a redirect": (answers(b"", 302), 9019),
    "a broken stream": (streams(ROLE, RESET), 9016),
    "an empty stream": (streams(), 9016),
}


@pytest.mark.parametrize(("play", "code"), LATER.values(), ids=LATER)
@pytest.mark.parametrize("steps", [[RESTARTS, OTHER], [RESTARTS, OTHER, step("mistral")]], ids=["last", "not last"])
async def test_from_then_on_failure_is_an_error(play: Plays, code: int, steps: list[Frame]) -> None:
    stage = await run_event(steps, BROKEN, *[play] * (len(steps) - 1))
    assert stage.types[-1] == "error"
    assert stage.code == code
    assert "response" not in stage.last()
    assert [a.get("code") for a in stage.metadata["attempts"]] == [9016, *[code] * (len(steps) - 1)]


async def test_even_if_an_earlier_step_had_given_an_answer_in_one_piece() -> None:
    steps = [step(), step("groq", onBreak="restart"), step("mistral")]
    stage = await run_event(steps, answers(status=503), BROKEN, refuses())
    assert (stage.types, stage.code) == (["created", "stream", "error"], 9010)


async def test_an_answer_in_one_piece_is_created_restarted_with_its_response() -> None:
    broken = streams(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":9}}\n\n', RESET)
    stage = await run_event([RESTARTS, OTHER], broken, answers())
    assert stage.types == ["created", "stream", "created"]
    assert stage.last()["response"] == {"ok": True}
    assert (stage.metadata["restarted"], stage.metadata["step"], stage.metadata["success"]) == (True, "1", True)
    assert "usage" not in stage.metadata, "that was the broken one's"


async def test_a_refusal_by_policy_is_such_an_answer() -> None:
    stage = await run_event([RESTARTS, OTHER], BROKEN, Plays([POLICY], 400, JSON))
    assert stage.types == ["created", "stream", "created"]
    assert (stage.code, stage.metadata["restarted"]) == (400, True)


async def test_steps_that_fail_before_they_answer_are_passed_over() -> None:
    steps = [RESTARTS, step("groq"), step("mistral")]
    stage = await run_event(steps, BROKEN, streams(ROLE, RESET), streams(*WHOLE))
    assert [frame["metadata"]["step"] for frame in stage.frames if frame["type"] == "universal.created"] == ["0", "2"]
    assert stage.code is None


async def test_total_timeout_is_no_break() -> None:
    runtime = House(streams(said("a"), SILENCE))
    stage = await runtime.event([step(onBreak="restart", totalTimeout=1000), OTHER]).begin()
    await stage.pass_s(1.1)
    assert stage.code == 9015


async def test_a_restarted_answer_has_clocks_of_its_own() -> None:
    gate = asyncio.Event()
    runtime = House(streams(said("a"), gate, RESET), Plays(waiting=[SILENCE]))
    config = {"requestTimeout": 1000}
    stage = await runtime.event([step(onBreak="restart", **config), step("groq", **config)]).begin()
    await stage.pass_s(100)
    await stage.open(gate)
    await stage.pass_s(0.9)
    assert not stage.is_over
    await stage.pass_s(0.2)
    assert stage.code == 9013
