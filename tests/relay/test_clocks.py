"""Timeouts of an event: what starts, stops and resets each, and which error the client receives."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.relay.deadlines import Clock, Interrupt
from tests.support.clock import advance, run_until_idle, turns
from tests.support.event_harness import COMPLETE, ROLE, EventHarness, ScriptedRuntime, content, step
from tests.support.event_harness import run as run_event
from tests.support.provider_script import JSON, SILENCE, Part, ScriptedResponse, answers, streams

NO_LIMIT = {"connectTimeout": 0, "requestTimeout": 0, "idleTimeout": 0, "totalTimeout": 0}


async def start(scripted: ScriptedResponse, **config: object) -> EventHarness:
    """Start an event with no timeouts but those of `config`, in milliseconds."""
    return await ScriptedRuntime(scripted).event(step(**NO_LIMIT | config)).start()


async def check_fails_between(event: EventHarness, after_s: float, before_s: float, code: int) -> None:
    await event.advance(after_s)
    assert not event.is_done
    await event.advance(before_s - after_s)
    assert event.code == code
    assert event.metadata["status"] in {200, 502 if code == 9010 else 504}


async def test_connect_timeout_ends_with_the_connection() -> None:
    event = await start(ScriptedResponse(before_connect=[SILENCE]), connectTimeout=1000)
    assert event.runner.phase == "connecting"
    await check_fails_between(event, 0.9, 1.1, 9010)
    assert "connectTimeout" in event.last_frame()["error"]["message"]
    gate = asyncio.Event()
    event = await start(ScriptedResponse(COMPLETE, before_head=[gate]), connectTimeout=1000)
    assert event.runner.phase == "waiting"
    await event.advance(100)
    await event.release(gate)
    assert event.code is None


async def test_connect_timeout_ends_at_the_head_if_the_transport_reports_no_connection() -> None:
    gate = asyncio.Event()
    runtime = ScriptedRuntime(ScriptedResponse([gate, *COMPLETE]))
    runtime.provider.reports_connections = False
    event = await runtime.event(step(**NO_LIMIT | {"connectTimeout": 1000})).start()
    await event.advance(100)
    await event.release(gate)
    assert event.code is None


async def test_request_timeout_runs_until_the_head() -> None:
    await check_fails_between(await start(ScriptedResponse(before_head=[SILENCE]), requestTimeout=1000), 0.9, 1.1, 9013)


NO_ANSWER: dict[str, Part] = {
    "headers": b"",
    "comments": b": busy\n\n",
    "bookkeeping": ROLE,
    "an incomplete item": content("a")[:-1],
}


@pytest.mark.parametrize("part", NO_ANSWER.values(), ids=NO_ANSWER)
@pytest.mark.parametrize("steps", [1, 2])
async def test_headers_comments_and_bookkeeping_do_not_stop_request_timeout(part: Part, steps: int) -> None:
    """Both if they are sent immediately and if they are held back."""
    runtime = ScriptedRuntime(streams(part, SILENCE), answers())
    chain = [step(**NO_LIMIT | {"requestTimeout": 5000}), step("groq")][:steps]
    event = await runtime.event(chain).start()
    await event.advance(4.9)
    assert len(runtime.provider.requests) == 1
    assert not event.is_done
    await event.advance(0.2)
    assert event.metadata["attempts"][0]["code"] == 9013 if steps == 2 else event.code == 9013


async def test_comments_do_not_start_the_answer_after_the_hold_limit() -> None:
    runtime = ScriptedRuntime(streams(b": busy\n\n", SILENCE), answers())
    event = await runtime.event([step(**NO_LIMIT | {"requestTimeout": 30_000}), step("groq")]).start()
    await event.advance(29)
    assert event.frames == []
    await event.advance(2)
    assert (event.code, event.metadata["step"]) == (None, "1")


async def test_request_timeout_covers_the_whole_body_of_a_buffered_answer() -> None:
    event = await start(ScriptedResponse([b'{"half":', SILENCE], content_type=JSON), requestTimeout=1000)
    await check_fails_between(event, 0.9, 1.1, 9013)


async def test_the_first_answer_item_stops_request_timeout() -> None:
    gate = asyncio.Event()
    event = await start(streams(content("a"), gate, *COMPLETE), requestTimeout=1000)
    await event.advance(100)
    await event.release(gate)
    assert event.types[-1] == "done"


@pytest.mark.parametrize("part", [content("b"), b": beat\n\n", b"data"], ids=["an item", "a comment", "a part"])
async def test_any_byte_resets_idle_timeout(part: bytes) -> None:
    gate = asyncio.Event()
    event = await start(streams(content("a"), gate, part, SILENCE), idleTimeout=1000)
    await event.advance(0.9)
    await event.release(gate)
    await check_fails_between(event, 0.9, 1.1, 9014)
    assert "idleTimeout" in event.last_frame()["error"]["message"]


async def test_any_byte_of_a_buffered_answer_resets_idle_timeout() -> None:
    gate = asyncio.Event()
    event = await start(ScriptedResponse([b"{", gate, b" ", SILENCE], content_type=JSON), idleTimeout=1000)
    await event.advance(0.9)
    await event.release(gate)
    await check_fails_between(event, 0.9, 1.1, 9014)


async def test_idle_timeout_starts_at_the_head() -> None:
    gate = asyncio.Event()
    event = await start(ScriptedResponse([SILENCE], before_head=[gate]), idleTimeout=1000)
    await event.advance(100)
    await event.release(gate)
    await check_fails_between(event, 0.9, 1.1, 9014)


async def test_only_total_timeout_outlasts_its_attempt() -> None:
    gate = asyncio.Event()
    runtime = ScriptedRuntime(answers(status=400), ScriptedResponse(COMPLETE, before_head=[gate]))
    config = {"connectTimeout": 1000, "requestTimeout": 1000, "idleTimeout": 1000}
    event = await runtime.event([step(**NO_LIMIT | config), step("groq", **NO_LIMIT)]).start()
    await event.advance(100)
    await event.release(gate)
    assert event.types[-1] == "done"


PHASES: dict[str, list[ScriptedResponse]] = {
    "connecting": [ScriptedResponse(before_connect=[SILENCE])],
    "waiting for the head": [ScriptedResponse(before_head=[SILENCE])],
    "collecting": [ScriptedResponse([b'{"half":', SILENCE], content_type=JSON)],
    "holding": [streams(ROLE, SILENCE)],
    "streaming": [streams(content("a"), SILENCE)],
    "backing off": [answers(status=429, retry_after="5")],
}


@pytest.mark.parametrize("responses", PHASES.values(), ids=PHASES)
async def test_total_timeout_ends_every_phase(responses: list[ScriptedResponse]) -> None:
    config = NO_LIMIT | {"totalTimeout": 1000, "maxAttempts": 2, "onBreak": "restart"}
    event = await ScriptedRuntime(*responses).event([step(**config), step("groq")]).start()
    await check_fails_between(event, 0.9, 1.1, 9015)
    assert event.last_frame()["error"]["retryable"] is False


async def test_total_timeout_counts_all_steps_and_retries_together() -> None:
    config = NO_LIMIT | {"requestTimeout": 600, "totalTimeout": 1000}
    runtime = ScriptedRuntime(*[ScriptedResponse(before_head=[SILENCE])] * 2)
    event = await runtime.event([step(**config), step("groq", **config)]).start()
    await event.advance(0.7)
    await check_fails_between(event, 0.2, 0.4, 9015)
    assert [a["code"] for a in event.metadata["attempts"]] == [9013, 9015]


async def test_the_first_steps_total_timeout_applies_to_the_event() -> None:
    steps = [step(**NO_LIMIT | {"totalTimeout": 2000}), step("groq", **NO_LIMIT | {"totalTimeout": 500})]
    event = await ScriptedRuntime(answers(status=400), ScriptedResponse(before_head=[SILENCE])).event(steps).start()
    await check_fails_between(event, 1.9, 2.1, 9015)


async def test_a_timeout_of_zero_means_no_limit() -> None:
    gate = asyncio.Event()
    event = await start(ScriptedResponse(COMPLETE, before_connect=[gate]))
    await event.advance(10 * 3_600)
    await event.release(gate)
    assert event.types[-1] == "done"


DEFAULTS = {
    "connect 10 s": (ScriptedResponse(before_connect=[SILENCE]), 10, 9010),
    "request 600 s": (ScriptedResponse(before_head=[SILENCE]), 600, 9013),
    "idle 300 s": (streams(content("a"), SILENCE), 300, 9014),
}


@pytest.mark.parametrize(("scripted", "seconds", "code"), DEFAULTS.values(), ids=DEFAULTS)
async def test_default_timeouts_apply(scripted: ScriptedResponse, seconds: float, code: int) -> None:
    event = await ScriptedRuntime(scripted).event(step()).start()
    await check_fails_between(event, seconds - 0.1, seconds + 0.1, code)


async def test_a_timeout_is_retried_only_on_the_last_step() -> None:
    silent = ScriptedResponse(before_head=[SILENCE])
    config = {"requestTimeout": 1000, "maxAttempts": 2, "retryDelay": 0}
    event = await ScriptedRuntime(silent, silent, answers()).event([step(**config), step("groq", **config)]).start()
    await event.advance(1.1)
    await event.advance(1.1)
    assert [(a["step"], a.get("code")) for a in event.metadata["attempts"]] == [("0", 9013), ("1", 9013), ("1", None)]


# Pausing.


async def test_deadlines_pause_while_the_client_does_not_read() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    config = {"idleTimeout": 1000, "totalTimeout": 2000}
    event = await start(streams(content("a"), gates[0], content("b"), gates[1], *COMPLETE), **config)
    event.sink.stop_reading()
    await event.release(gates[0])
    reads = event.runtime.provider.requests[0].reads
    await event.advance(100)
    assert not event.is_done
    assert event.runtime.provider.requests[0].reads == reads, "the provider is not read"
    event.sink.resume_reading()
    await run_until_idle()
    await event.advance(0.9)
    await event.release(gates[1])
    assert event.types[-1] == "done"


async def test_deadlines_resume_with_the_remaining_time() -> None:
    gate = asyncio.Event()
    event = await start(streams(content("a"), gate, content("b"), SILENCE), totalTimeout=2000)
    await event.advance(1)
    event.sink.stop_reading()
    await event.release(gate)
    await event.advance(100)
    event.sink.resume_reading()
    await run_until_idle()
    await check_fails_between(event, 0.9, 1.1, 9015)


# Races.


async def test_total_timeout_takes_precedence_over_another_timeout_at_the_same_instant() -> None:
    config = NO_LIMIT | {"requestTimeout": 1000, "totalTimeout": 1000}
    event = (
        await ScriptedRuntime(ScriptedResponse(before_head=[SILENCE]))
        .event([step(**config), step("groq", **config)])
        .start()
    )
    await event.advance(1.1)
    assert event.code == 9015


async def test_total_timeout_takes_precedence_during_another_interrupt() -> None:
    """An interrupted task may take several turns of the loop to end."""
    interrupt, consumed = Interrupt(), list[Clock]()

    async def ends_slowly() -> None:
        interrupt.attach()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            advance(1)
            await turns()
            consumed.append(interrupt.consume())
        await asyncio.sleep(0)  # is not interrupted again

    interrupt.deadlines.set(Clock.IDLE, 1)
    interrupt.deadlines.set(Clock.TOTAL, 2)
    task = asyncio.create_task(ends_slowly())
    await run_until_idle()
    advance(1)
    await task
    assert consumed == [Clock.TOTAL]
    assert task.cancelling() == 0
    interrupt.deadlines.stop()


async def test_a_due_deadline_that_an_earlier_one_clears_does_not_fire() -> None:
    """Both are due in one turn of the loop: when held items are sent, the step has answered."""
    config = NO_LIMIT | {"requestTimeout": 10_500}
    event = await ScriptedRuntime(streams(ROLE, SILENCE)).event([step(**config), step("groq")]).start()
    await event.advance(11)
    assert event.types == ["created", "stream"]
    assert not event.is_done
    await event.cancel()


async def test_a_cancellation_by_the_tasks_owner_is_not_consumed_as_a_deadline() -> None:
    interrupt = Interrupt()

    async def interrupted_twice() -> None:
        interrupt.attach()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupt.consume()

    interrupt.deadlines.set(Clock.IDLE, 1)
    task = asyncio.create_task(interrupted_twice())
    await run_until_idle()
    asyncio.get_running_loop().call_soon(task.cancel)
    advance(1)
    await asyncio.wait([task])
    assert task.cancelled()
    interrupt.deadlines.stop()


async def test_no_deadline_fires_after_the_answer_was_received() -> None:
    """A long body is encoded in a thread while the total timeout passes."""
    body, release_thread = b"x" * (1 << 20), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocker = loop.run_in_executor(None, release_thread.wait)
    event = await run_event(step(totalTimeout=1000), ScriptedResponse([body], content_type="text/plain"))
    await event.advance(2)
    was_running = not event.is_done
    release_thread.set()
    await blocker
    await event.wait_until_done()
    assert was_running
    assert event.code is None
    assert len(event.last_frame()["response"]) == 1 << 20
