"""Equal requests share one provider call, and a reader that leaves does not affect the others."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.errors import Cancelled
from bridge.relay.attempt import StepAttempt
from bridge.relay.interfaces import Services
from bridge.services.cache import read_chain, shared_call
from bridge.services.cache.cache import ResponseCache
from bridge.services.cache.shared_call import SharedCall, SharedResponse
from tests.support.clock import run_until_idle, turns
from tests.support.event_harness import (
    DONE,
    FINISH,
    OVERLOADED,
    ROLE,
    EventHarness,
    Frame,
    ScriptedRuntime,
    content,
    step,
)
from tests.support.provider_script import JSON, REFUSED, RESET, SILENCE, ScriptedResponse, answers, refuses, streams

COST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.5}}\n\n'
END = (FINISH, COST, DONE)
REQUEST = step("openrouter", cacheTtl=60)


class CachedRuntime(ScriptedRuntime):
    def __init__(self, *responses: ScriptedResponse, cache_bytes: int = 1 << 24) -> None:
        super().__init__(*responses)
        self.cache = ResponseCache(cache_bytes)
        self.runtime = replace(self.runtime, services=Services(cache=self.cache))

    @property
    def calls(self) -> int:
        return len(self.provider.requests)

    async def begin(self, count: int = 1, request: Frame = REQUEST) -> list[EventHarness]:
        return [await self.event(request).start() for _ in range(count)]


def status(event: EventHarness) -> str:
    value: str = event.frames[-1]["metadata"]["cacheStatus"]
    return value


def cost(event: EventHarness) -> float | None:
    value: float | None = event.last_frame()["metadata"].get("cost")
    return value


def check_complete(*events: EventHarness) -> None:
    for event in events:
        assert event.code is None, event.frames[-1]
        assert event.texts == ["a", "b"]


async def test_a_reader_before_the_head_shares_the_call() -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(ScriptedResponse([ROLE, content("a"), content("b"), *END], before_head=[gate]))
    leader, *others = await runtime.begin(3)
    await leader.release(gate)
    check_complete(leader, *others)
    assert runtime.calls == 1
    assert [status(leader), *map(status, others)] == ["MISS", "HIT", "HIT"]
    assert [cost(leader), *map(cost, others)] == [0.5, 0, 0]
    assert (runtime.cache.misses, runtime.cache.coalesced, runtime.cache.hits) == (1, 2, 0)


async def test_readers_of_a_shared_call_get_equal_frames() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    runtime = CachedRuntime(
        streams(ROLE, gates[0], content("a") + content("b")[:20], gates[1], content("b")[20:], *END)
    )
    first = await runtime.event(REQUEST).start()
    second = await runtime.event(REQUEST).start()
    await first.release(gates[0])
    third = await runtime.event(REQUEST).start()
    await first.release(gates[1])
    check_complete(first, second, third)
    streamed = [[frame for frame in event.frames if frame["type"] == "universal.stream"] for event in (first, second)]
    assert streamed[0] == streamed[1]
    assert third.frames[1:-1] == first.frames[1:-1]
    assert first.metadata["usage"] == second.metadata["usage"] == third.metadata["usage"]


async def test_a_late_reader_gets_the_beginning_and_then_follows_live() -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(streams(ROLE, content("a"), gate, content("b"), *END))
    [leader] = await runtime.begin()
    [late] = await runtime.begin()
    assert late.texts == leader.texts == ["a"]
    await leader.release(gate)
    check_complete(leader, late)
    assert runtime.calls == 1


async def test_a_buffered_answer_is_shared() -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(ScriptedResponse([b'{"a":', gate, b"1}"], content_type=JSON))
    events = await runtime.begin(3)
    await events[0].release(gate)
    assert [event.last_frame()["response"] for event in events] == [{"a": 1}] * 3
    assert list(map(status, events)) == ["MISS", "HIT", "HIT"]


PLACES: dict[str, Callable[[asyncio.Event], ScriptedResponse]] = {
    "connecting": lambda gate: ScriptedResponse([ROLE, content("a"), content("b"), *END], before_connect=[gate]),
    "before the head": lambda gate: ScriptedResponse([ROLE, content("a"), content("b"), *END], before_head=[gate]),
    "before it answered": lambda gate: ScriptedResponse([ROLE, gate, content("a"), content("b"), *END]),
    "in the middle": lambda gate: ScriptedResponse([ROLE, content("a"), gate, content("b"), *END]),
}
every_place = pytest.mark.parametrize("place", PLACES)


@every_place
@pytest.mark.parametrize("leaves", [0, 1])
async def test_a_reader_that_leaves_does_not_affect_the_others(place: str, leaves: int) -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(PLACES[place](gate))
    events = await runtime.begin(3)
    await events.pop(leaves).cancel()
    assert not runtime.provider.requests[0].closed.is_set()
    await events[0].release(gate)
    check_complete(*events)
    assert runtime.calls == 1


@every_place
async def test_ownership_passes_on_when_the_owner_leaves_early(place: str) -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(PLACES[place](gate))
    leader, second, third = await runtime.begin(3)
    await leader.cancel()
    await second.release(gate)
    assert leader.frames[-1]["error"]["code"] == 9020
    assert not leader.frames[-1]["metadata"].get("cost")
    assert [cost(second), cost(third)] == [0.5, 0]
    assert [status(second), status(third)] == ["MISS", "HIT"]


async def test_an_owner_that_is_done_stays_the_owner() -> None:
    """The event ends at the closing mark; the rest of the body is read for a second, in which readers may join."""
    runtime = CachedRuntime(streams(ROLE, content("a"), content("b"), *END, SILENCE))
    [leader] = await runtime.begin()
    await leader.advance(0.8)
    [late] = await runtime.begin()
    assert (leader.is_done, late.is_done) == (True, True)
    assert not runtime.provider.requests[0].closed.is_set()
    await late.advance(1.1)
    check_complete(leader, late)
    assert (cost(leader), cost(late)) == (0.5, 0)


@every_place
async def test_the_connection_is_closed_when_the_last_reader_leaves(place: str) -> None:
    runtime = CachedRuntime(PLACES[place](asyncio.Event()))
    events = await runtime.begin(3)
    for event in events:
        assert not runtime.provider.requests[0].closed.is_set()
        await event.cancel()
    for event in events:
        event.check_resources_released()
    assert runtime.cache.stored_bytes == 0
    assert runtime.cache._budget.used == 0
    assert not runtime.cache._shared_calls


async def test_closing_takes_no_more_than_a_few_turns_of_the_loop() -> None:
    for place in PLACES.values():
        runtime = CachedRuntime(place(asyncio.Event()))
        [event] = await runtime.begin()
        event.runner.cancel(Cancelled("cancelled"))
        await turns(4)
        assert runtime.provider.open_streams == 0


async def test_a_readers_timeout_does_not_affect_the_others() -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(ScriptedResponse([content("a"), content("b"), *END], before_head=[gate]))
    [patient] = await runtime.begin()
    [hasty] = await runtime.begin(request=step("openrouter", cacheTtl=60, requestTimeout=1000))
    await hasty.advance(1.1)
    assert hasty.frames[-1]["error"]["code"] == 9013
    await patient.release(gate)
    check_complete(patient)
    assert (cost(patient), runtime.calls) == (0.5, 1)


async def test_the_connect_timeout_ends_with_the_shared_connection() -> None:
    """The connect timeout ends with the shared connection, for earlier and later readers."""
    gates = asyncio.Event(), asyncio.Event()
    runtime = CachedRuntime(
        ScriptedResponse([content("a"), content("b"), *END], before_connect=[gates[0]], before_head=[gates[1]])
    )
    events = await runtime.begin(2)
    await events[0].release(gates[0])
    events += await runtime.begin()
    await events[0].advance(100)
    assert [event.runner.phase for event in events] == ["waiting"] * 3
    await events[0].release(gates[1])
    check_complete(*events)


@pytest.mark.parametrize(
    ("scripted", "code"),
    [
        (ScriptedResponse(before_connect=[SILENCE]), None),
        (ScriptedResponse(before_connect=[REFUSED]), 9010),
        (ScriptedResponse(before_head=[RESET]), 9012),
        (streams(ROLE, RESET), 9016),
        (streams(content("a"), RESET), 9016),
        (streams(content("a"), content("b")), 9016),
        (streams(content("a"), OVERLOADED), 9017),
        (answers(b'{"error":{"message":"no"}}', status=503), 503),
    ],
)
async def test_a_failure_reaches_all_readers_and_is_not_stored(scripted: ScriptedResponse, code: int | None) -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(
        replace(scripted, before_connect=[gate, *scripted.before_connect]), streams(content("a"), content("b"), *END)
    )
    events = await runtime.begin(3)
    await events[0].release(gate)
    if code is None:
        for event in events:
            await event.advance(10)
        code = 9010
    assert [event.code for event in events] == [code] * 3
    assert runtime.calls == 1
    check_complete(*await runtime.begin())
    assert runtime.calls == 2


async def test_each_reader_retries_by_its_own_chain() -> None:
    gate = asyncio.Event()
    well = streams(content("a"), content("b"), *END)
    runtime = CachedRuntime(ScriptedResponse(before_connect=[gate, REFUSED]), well, well)
    [impatient] = await runtime.begin()
    retrying = await runtime.begin(2, step("openrouter", cacheTtl=60, maxAttempts=2, retryDelay=500))
    [falling] = await runtime.begin(request=[REQUEST, step("groq")])  # type: ignore[arg-type]  # a chain
    await impatient.release(gate)
    for event in retrying:
        await event.advance(1)
    assert impatient.code == 9010
    check_complete(*retrying, falling)
    assert falling.metadata["step"] == "1"
    assert runtime.calls == 3
    assert sorted(map(status, retrying)) == ["HIT", "MISS"]


async def test_calls_are_not_shared_while_the_cache_is_off() -> None:
    gate = asyncio.Event()
    responses = [ScriptedResponse([content("a"), content("b"), *END], before_head=[gate])] * 6
    runtime = CachedRuntime(*responses)
    events = await runtime.begin(3, step("openrouter"))
    events += await runtime.begin(3, step("openrouter", cacheTtl=60, skipCache=True))
    assert runtime.calls == 6
    await events[0].release(gate)
    check_complete(*events)
    assert set(map(status, events)) == {"MISS"}
    assert (runtime.cache.misses, runtime.cache.stored_bytes) == (0, 0)


async def test_the_provider_is_read_only_on_demand() -> None:
    runtime = CachedRuntime(streams(content("a"), content("b"), *END))
    events = [runtime.event(REQUEST), runtime.event(REQUEST)]
    for event in events:
        event.sink.stop_reading()
        await event.start()
    assert runtime.provider.requests[0].reads == 1
    events[1].sink.resume_reading()
    await run_until_idle()
    assert runtime.provider.requests[0].was_read_fully
    assert (events[0].texts, events[1].texts) == (["a"], ["a", "b"])
    events[0].sink.resume_reading()
    await run_until_idle()
    check_complete(*events)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of more than 2 KB are too large, and the maximal lead is 1 KB."""
    monkeypatch.setattr(read_chain, "MAX_ANSWER_BYTES", 2000)
    monkeypatch.setattr(shared_call, "MAX_LEAD_BYTES", 1000)


@pytest.mark.usefixtures("tiny")
async def test_a_too_large_answer_is_shared_by_present_readers_only() -> None:
    head, gate = asyncio.Event(), asyncio.Event()
    large = [content("x" * 500) for _ in range(10)]
    runtime = CachedRuntime(ScriptedResponse([*large, gate, *END], before_head=[head]), streams(*large, *END))
    early = await runtime.begin(2)
    await early[0].release(head)
    late = await runtime.begin(1)
    assert runtime.calls == 2
    await early[0].release(gate)
    assert [len(event.texts) for event in (*early, *late)] == [10, 10, 10]
    assert [event.code for event in (*early, *late)] == [None] * 3
    assert runtime.cache.stored_bytes == 0


@pytest.mark.usefixtures("tiny")
async def test_a_fast_reader_of_a_too_large_answer_waits_for_the_slow_one() -> None:
    runtime = CachedRuntime(streams(*[content("x" * 500) for _ in range(40)], *END))
    slow, fast = runtime.event(REQUEST), runtime.event(REQUEST)
    slow.sink.stop_reading()
    await slow.start()
    await fast.start()
    await run_until_idle()
    read = runtime.provider.requests[0].reads
    assert read < 8
    slow.sink.resume_reading()
    await run_until_idle()
    assert [len(event.texts) for event in (slow, fast)] == [40, 40]
    slow.check_resources_released()


@pytest.mark.usefixtures("tiny")
async def test_a_fast_reader_continues_when_the_slow_one_leaves() -> None:
    runtime = CachedRuntime(streams(*[content("x" * 500) for _ in range(40)], *END))
    slow, fast = runtime.event(REQUEST), runtime.event(REQUEST)
    slow.sink.stop_reading()
    await slow.start()
    await fast.start()
    assert not fast.is_done
    await slow.cancel()
    await run_until_idle()
    assert len(fast.texts) == 40
    fast.check_resources_released()


async def test_the_memory_of_all_shared_calls_is_bounded() -> None:
    """Without memory left, an answer is relayed like one that is too large."""
    runtime = CachedRuntime(streams(*[content("x" * 500) for _ in range(20)], *END), cache_bytes=4000)
    [event] = await runtime.begin()
    assert len(event.texts) == 20
    assert event.code is None
    assert (runtime.cache.stored_bytes, runtime.cache._budget.used) == (0, 0)


async def test_buffered_reads_yield_to_other_tasks() -> None:
    """A thousand buffered reads would otherwise block other tasks."""
    gate = asyncio.Event()
    runtime = CachedRuntime(streams(*[content("x") for _ in range(1000)], gate, *END))
    [leader] = await runtime.begin()
    await run_until_idle()
    late = await runtime.event(REQUEST).start(iterations=10)
    assert 0 < len(late.texts) < 500
    await run_until_idle()
    assert len(late.texts) == 1000
    await leader.release(gate)
    again = await runtime.event(REQUEST).start(iterations=10)
    assert 0 < len(again.texts) < 500
    await run_until_idle()
    assert [len(event.texts) for event in (leader, late, again)] == [1000] * 3


async def test_a_cancelled_read_loses_no_data() -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(streams(content("a"), gate, content("b"), *END))
    [first] = await runtime.begin()
    [second] = await runtime.begin()
    gate.set()
    first.runner.cancel(Cancelled("cancelled"))
    await run_until_idle()
    check_complete(second)


@pytest.mark.parametrize(
    "scripted", [streams(content("a"), content("b"), *END), streams(content("a"), RESET), answers(), refuses()]
)
async def test_a_shared_call_leaves_no_reference_cycles(scripted: ScriptedResponse) -> None:
    gate = asyncio.Event()
    runtime = CachedRuntime(replace(scripted, before_connect=[gate, *scripted.before_connect]))
    gc.collect()
    gc.disable()
    try:
        events = await runtime.begin(3)
        await events[0].release(gate)
        assert all(event.is_done for event in events)
        events.clear()
        await turns()
        left = [each for each in gc.get_objects() if isinstance(each, SharedCall | SharedResponse | StepAttempt)]
        assert left == []
    finally:
        gc.enable()
