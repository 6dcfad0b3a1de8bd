"""`universal.cancel` ends an event in any phase with one last frame, whatever happens at the same time."""

import asyncio
from pathlib import Path

import pytest

from bridge.errors import Cancelled, Draining
from tests.support.clock import advance, run_until_idle
from tests.support.event_harness import COMPLETE, ROLE, EventHarness, ScriptedRuntime, content, step
from tests.support.harness import config_of, connected, running
from tests.support.provider_script import JSON, RESET, SILENCE, ScriptedProvider, ScriptedResponse, answers, streams

PHASES: dict[str, tuple[list[ScriptedResponse], str]] = {
    "connecting": ([ScriptedResponse(before_connect=[SILENCE])], "connecting"),
    "waiting for the head": ([ScriptedResponse(before_head=[SILENCE])], "waiting"),
    "waiting for the first byte": ([streams(SILENCE)], "waiting"),
    "collecting": ([ScriptedResponse([b'{"half":', SILENCE], content_type=JSON)], "waiting"),
    "held": ([streams(ROLE, SILENCE)], "streaming"),
    "streaming": ([streams(content("a"), SILENCE)], "streaming"),
    "after the finish mark": ([streams(*COMPLETE[:3], SILENCE)], "streaming"),
    "after the closing mark": ([streams(*COMPLETE, SILENCE)], "streaming"),
    "backing off": ([answers(status=503)], "backing off"),
}


async def in_phase(name: str) -> EventHarness:
    responses, phase = PHASES[name]
    event = await ScriptedRuntime(*responses).event([step(maxAttempts=2), step("groq")]).start()
    assert event.runner.phase == phase
    return event


def check_cancelled(event: EventHarness) -> None:
    last = event.last_frame()
    assert last["type"] == "universal.error"
    assert last["error"] == {
        "code": 9020,
        "message": "cancelled by the client",
        "source": "client",
        "retryable": False,
    }
    assert last["metadata"]["success"] is False
    assert last["metadata"]["status"] == (200 if "created" in event.types else 499)


@pytest.mark.parametrize("phase", PHASES)
async def test_every_phase_can_be_cancelled(phase: str) -> None:
    event = await in_phase(phase)
    event.runner.cancel(Cancelled("cancelled by the client"))
    await run_until_idle()  # no time passes
    check_cancelled(event)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_second_cancel_has_no_effect(phase: str) -> None:
    event = await in_phase(phase)
    event.runner.cancel(Cancelled("cancelled by the client"))
    event.runner.cancel(Draining("second cancel"))
    await run_until_idle()
    event.runner.cancel(Draining("third cancel"))
    await run_until_idle()
    check_cancelled(event)


async def test_an_event_can_be_cancelled_before_its_task_starts() -> None:
    event = ScriptedRuntime().event(step())
    event.runner.cancel(Cancelled("cancelled by the client"))
    await event.start()
    check_cancelled(event)
    assert event.runtime.provider.requests == []


async def test_an_event_can_be_cancelled_while_the_client_does_not_read() -> None:
    gate = asyncio.Event()
    event = await ScriptedRuntime(streams(content("a"), gate, content("b"), SILENCE)).event(step()).start()
    event.sink.stop_reading()
    await event.release(gate)
    await event.advance(100)
    await event.cancel()
    check_cancelled(event)


async def test_the_cancelled_attempt_is_listed_with_its_code() -> None:
    event = (
        await ScriptedRuntime(answers(status=400), ScriptedResponse(before_head=[SILENCE]))
        .event([step(), step("groq")])
        .start()
    )
    await event.cancel()
    assert [a["code"] for a in event.metadata["attempts"]] == [400, 9020]


async def test_a_cancel_after_the_first_frame_keeps_step_and_provider() -> None:
    event = await ScriptedRuntime(streams(content("a"), SILENCE)).event(step()).start()
    await event.cancel()
    assert event.types == ["created", "stream", "error"]
    assert (event.metadata["step"], event.metadata["provider"]) == ("0", "openai")


async def test_a_cancel_after_the_last_frame_has_no_effect() -> None:
    """Also while the client has not read the last frame yet."""
    gate = asyncio.Event()
    event = (
        await ScriptedRuntime(ScriptedResponse(before_head=[gate], body=[b"{}"], content_type=JSON))
        .event(step())
        .start()
    )
    event.sink.stop_reading()
    await event.release(gate)
    assert event.last_frame_count == 1
    assert not event.is_done
    assert event.runtime.budget.used > 0, "unread frames count"
    await event.cancel()
    assert not event.is_done
    event.sink.resume_reading()
    await run_until_idle()
    assert (event.types, event.code) == (["created"], None)


# A cancel that coincides with a deadline, with data or with the end.


@pytest.mark.parametrize("clock", ["connectTimeout", "requestTimeout", "totalTimeout"])
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_cancel_takes_precedence_over_a_deadline(clock: str, cancel_first: bool) -> None:
    """Both happen in one turn of the loop, in either order."""
    event = (
        await ScriptedRuntime(ScriptedResponse(before_connect=[SILENCE]))
        .event([step(**{clock: 1000}), step("groq")])
        .start()
    )
    loop, error = asyncio.get_running_loop(), Cancelled("cancelled by the client")
    if cancel_first:
        loop.call_soon(event.runner.cancel, error)
    advance(2)
    loop.call_at(loop.time(), event.runner.cancel, error)
    await run_until_idle()
    check_cancelled(event)


@pytest.mark.parametrize("rest", [[content("b")], [RESET], []], ids=["data", "a reset", "the end"])
async def test_a_cancel_takes_precedence_over_the_providers_next_read(rest: list[bytes]) -> None:
    gate = asyncio.Event()
    event = (
        await ScriptedRuntime(streams(content("a"), gate, *rest)).event([step(onBreak="restart"), step("groq")]).start()
    )
    gate.set()
    await event.cancel()
    check_cancelled(event)
    assert event.types == ["created", "stream", "error"]


async def test_an_event_whose_task_is_cancelled_sends_a_last_frame() -> None:
    event = await ScriptedRuntime(streams(content("a"), SILENCE)).event(step()).start()
    task = event.task
    task.cancel()
    await run_until_idle()
    assert task.cancelled()
    assert event.types == ["created", "stream", "error"]
    assert event.frames[-1]["error"]["code"] == 9020
    assert event.runtime.provider.open_streams == event.runtime.budget.used == 0


# Events of one socket.


async def test_the_id_of_a_cancelled_event_may_be_used_again(tmp_path: Path) -> None:
    provider = ScriptedProvider(streams(content("a"), SILENCE), streams(*COMPLETE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": 7, **step()})
        await client.receive()
        await client.cancel(7)
        assert (await client.until_last(7))[-1]["error"]["code"] == 9020
        assert provider.open_streams == 0
        client.frames.clear()
        assert (await client.call({"eventId": 7, **step()}))[-1]["type"] == "universal.done"


async def test_an_id_that_is_unknown_or_finished_is_ignored(tmp_path: Path) -> None:
    provider = ScriptedProvider(streams(*COMPLETE), streams(*COMPLETE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.cancel("unknown")
        await client.call({"eventId": "one", **step()})
        await client.cancel("one")
        frames = await client.call({"eventId": "two", **step()})
        assert frames[-1]["type"] == "universal.done"
        assert len(client.frames) == 10, "five each, and nothing else"


async def test_a_message_can_be_cancelled_immediately(tmp_path: Path) -> None:
    provider = ScriptedProvider(*[ScriptedResponse(before_head=[SILENCE])] * 100)
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        for name in range(100):
            await client.create({"eventId": name, **step()})
            await client.cancel(name)
        ends = [await client.until_last(name) for name in range(100)]
        assert [[frame["error"]["code"] for frame in frames] for frames in ends] == [[9020]] * 100
        assert provider.open_streams == 0


async def test_closing_the_socket_cancels_all_its_events(tmp_path: Path) -> None:
    provider = ScriptedProvider(*[streams(content("a"), SILENCE)] * 3)
    async with running(config_of("", tmp_path), provider) as server:
        async with connected(server) as client:
            for name in range(3):
                await client.create({"eventId": name, **step()})
            while len(client.frames) < 6:
                await client.receive()
            assert provider.open_streams == 3
        for received in provider.requests:
            await received.closed.wait()
