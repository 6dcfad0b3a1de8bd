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
from tests.support.event_harness import DONE, FINISH, OVERLOADED, ROLE, EventHarness, Frame, House, said, step
from tests.support.provider_script import JSON, REFUSED, RESET, SILENCE, Plays, answers, refuses, streams

COST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"cost":0.5}}\n\n'
END = (FINISH, COST, DONE)
ASKED = step("openrouter", cacheTtl=60)


class CachedHouse(House):
    def __init__(self, *plays: Plays, cache_bytes: int = 1 << 24) -> None:
        super().__init__(*plays)
        self.cache = ResponseCache(cache_bytes)
        self.shared = replace(self.shared, services=Services(cache=self.cache))

    @property
    def calls(self) -> int:
        return len(self.provider.played)

    async def begin(self, count: int = 1, request: Frame = ASKED) -> list[EventHarness]:
        return [await self.event(request).begin() for _ in range(count)]


def status(stage: EventHarness) -> str:
    told: str = stage.frames[-1]["metadata"]["cacheStatus"]
    return told


def cost(stage: EventHarness) -> float | None:
    told: float | None = stage.last()["metadata"].get("cost")
    return told


def check_whole(*stages: EventHarness) -> None:
    for stage in stages:
        assert stage.code is None, stage.frames[-1]
        assert stage.texts == ["a", "b"]


async def test_a_reader_before_the_head_shares_the_call() -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(Plays([ROLE, said("a"), said("b"), *END], waiting=[gate]))
    leader, *others = await runtime.begin(3)
    await leader.open(gate)
    check_whole(leader, *others)
    assert runtime.calls == 1
    assert [status(leader), *map(status, others)] == ["MISS", "HIT", "HIT"]
    assert [cost(leader), *map(cost, others)] == [0.5, 0, 0]
    assert (runtime.cache.misses, runtime.cache.coalesced, runtime.cache.hits) == (1, 2, 0)


async def test_readers_of_a_shared_call_get_equal_frames() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    runtime = CachedHouse(streams(ROLE, gates[0], said("a") + said("b")[:20], gates[1], said("b")[20:], *END))
    first = await runtime.event(ASKED).begin()
    second = await runtime.event(ASKED).begin()
    await first.open(gates[0])
    third = await runtime.event(ASKED).begin()
    await first.open(gates[1])
    check_whole(first, second, third)
    streamed = [[frame for frame in stage.frames if frame["type"] == "universal.stream"] for stage in (first, second)]
    assert streamed[0] == streamed[1]
    assert third.frames[1:-1] == first.frames[1:-1]
    assert first.metadata["usage"] == second.metadata["usage"] == third.metadata["usage"]


async def test_a_late_reader_gets_the_beginning_and_then_follows_live() -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(streams(ROLE, said("a"), gate, said("b"), *END))
    [leader] = await runtime.begin()
    [late] = await runtime.begin()
    assert late.texts == leader.texts == ["a"]
    await leader.open(gate)
    check_whole(leader, late)
    assert runtime.calls == 1


async def test_a_buffered_answer_is_shared() -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(Plays([b'{"a":', gate, b"1}"], content_type=JSON))
    stages = await runtime.begin(3)
    await stages[0].open(gate)
    assert [stage.last()["response"] for stage in stages] == [{"a": 1}] * 3
    assert list(map(status, stages)) == ["MISS", "HIT", "HIT"]


PLACES: dict[str, Callable[[asyncio.Event], Plays]] = {
    "connecting": lambda gate: Plays([ROLE, said("a"), said("b"), *END], connecting=[gate]),
    "before the head": lambda gate: Plays([ROLE, said("a"), said("b"), *END], waiting=[gate]),
    "before it answered": lambda gate: Plays([ROLE, gate, said("a"), said("b"), *END]),
    "in the middle": lambda gate: Plays([ROLE, said("a"), gate, said("b"), *END]),
}
every_place = pytest.mark.parametrize("place", PLACES)


@every_place
@pytest.mark.parametrize("leaves", [0, 1])
async def test_a_reader_that_leaves_does_not_affect_the_others(place: str, leaves: int) -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(PLACES[place](gate))
    stages = await runtime.begin(3)
    await stages.pop(leaves).cancel()
    assert not runtime.provider.played[0].over.is_set()
    await stages[0].open(gate)
    check_whole(*stages)
    assert runtime.calls == 1


@every_place
async def test_ownership_passes_on_when_the_owner_leaves_early(place: str) -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(PLACES[place](gate))
    leader, second, third = await runtime.begin(3)
    await leader.cancel()
    await second.open(gate)
    assert leader.frames[-1]["error"]["code"] == 9020
    assert not leader.frames[-1]["metadata"].get("cost")
    assert [cost(second), cost(third)] == [0.5, 0]
    assert [status(second), status(third)] == ["MISS", "HIT"]


async def test_an_owner_that_is_done_stays_the_owner() -> None:
    """The event ends at the closing mark; the rest of the body is read for a second, in which readers may join."""
    runtime = CachedHouse(streams(ROLE, said("a"), said("b"), *END, SILENCE))
    [leader] = await runtime.begin()
    await leader.pass_s(0.8)
    [late] = await runtime.begin()
    assert (leader.is_over, late.is_over) == (True, True)
    assert not runtime.provider.played[0].over.is_set()
    await late.pass_s(1.1)
    check_whole(leader, late)
    assert (cost(leader), cost(late)) == (0.5, 0)


@every_place
async def test_the_connection_is_closed_when_the_last_reader_leaves(place: str) -> None:
    runtime = CachedHouse(PLACES[place](asyncio.Event()))
    stages = await runtime.begin(3)
    for stage in stages:
        assert not runtime.provider.played[0].over.is_set()
        await stage.cancel()
    for stage in stages:
        stage.check_nothing_is_left()
    assert runtime.cache.stored_bytes == 0
    assert runtime.cache._budget.used == 0
    assert not runtime.cache._shared_calls


async def test_closing_takes_no_more_than_a_few_turns_of_the_loop() -> None:
    for place in PLACES.values():
        runtime = CachedHouse(place(asyncio.Event()))
        [stage] = await runtime.begin()
        stage.relay.cancel(Cancelled("cancelled"))
        await turns(4)
        assert runtime.provider.open_streams == 0


async def test_a_readers_timeout_does_not_affect_the_others() -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(Plays([said("a"), said("b"), *END], waiting=[gate]))
    [patient] = await runtime.begin()
    [hasty] = await runtime.begin(request=step("openrouter", cacheTtl=60, requestTimeout=1000))
    await hasty.pass_s(1.1)
    assert hasty.frames[-1]["error"]["code"] == 9013
    await patient.open(gate)
    check_whole(patient)
    assert (cost(patient), runtime.calls) == (0.5, 1)


async def test_the_connect_timeout_ends_with_the_shared_connection() -> None:
    """The connect timeout ends with the shared connection, for earlier and later readers."""
    gates = asyncio.Event(), asyncio.Event()
    runtime = CachedHouse(Plays([said("a"), said("b"), *END], connecting=[gates[0]], waiting=[gates[1]]))
    stages = await runtime.begin(2)
    await stages[0].open(gates[0])
    stages += await runtime.begin()
    await stages[0].pass_s(100)
    assert [stage.relay.phase for stage in stages] == ["waiting"] * 3
    await stages[0].open(gates[1])
    check_whole(*stages)


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (Plays(connecting=[SILENCE]), None),
        (Plays(connecting=[REFUSED]), 9010),
        (Plays(waiting=[RESET]), 9012),
        (streams(ROLE, RESET), 9016),
        (streams(said("a"), RESET), 9016),
        (streams(said("a"), said("b")), 9016),
        (streams(said("a"), OVERLOADED), 9017),
        (answers(b'{"error":{"message":"no"}}', status=503), 503),
    ],
)
async def test_a_failure_reaches_all_readers_and_is_not_stored(play: Plays, code: int | None) -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(replace(play, connecting=[gate, *play.connecting]), streams(said("a"), said("b"), *END))
    stages = await runtime.begin(3)
    await stages[0].open(gate)
    if code is None:
        for stage in stages:
            await stage.pass_s(10)
        code = 9010
    assert [stage.code for stage in stages] == [code] * 3
    assert runtime.calls == 1
    check_whole(*await runtime.begin())
    assert runtime.calls == 2


async def test_each_reader_retries_by_its_own_chain() -> None:
    gate = asyncio.Event()
    well = streams(said("a"), said("b"), *END)
    runtime = CachedHouse(Plays(connecting=[gate, REFUSED]), well, well)
    [impatient] = await runtime.begin()
    retrying = await runtime.begin(2, step("openrouter", cacheTtl=60, maxAttempts=2, retryDelay=500))
    [falling] = await runtime.begin(request=[ASKED, step("groq")])  # type: ignore[arg-type]  # a chain
    await impatient.open(gate)
    for stage in retrying:
        await stage.pass_s(1)
    assert impatient.code == 9010
    check_whole(*retrying, falling)
    assert falling.metadata["step"] == "1"
    assert runtime.calls == 3
    assert sorted(map(status, retrying)) == ["HIT", "MISS"]


async def test_calls_are_not_shared_while_the_cache_is_off() -> None:
    gate = asyncio.Event()
    plays = [Plays([said("a"), said("b"), *END], waiting=[gate])] * 6
    runtime = CachedHouse(*plays)
    stages = await runtime.begin(3, step("openrouter"))
    stages += await runtime.begin(3, step("openrouter", cacheTtl=60, skipCache=True))
    assert runtime.calls == 6
    await stages[0].open(gate)
    check_whole(*stages)
    assert set(map(status, stages)) == {"MISS"}
    assert (runtime.cache.misses, runtime.cache.stored_bytes) == (0, 0)


async def test_the_provider_is_read_only_on_demand() -> None:
    runtime = CachedHouse(streams(said("a"), said("b"), *END))
    stages = [runtime.event(ASKED), runtime.event(ASKED)]
    for stage in stages:
        stage.sink.stop_reading()
        await stage.begin()
    assert runtime.provider.played[0].reads == 1
    stages[1].sink.read_on()
    await run_until_idle()
    assert runtime.provider.played[0].was_read_to_its_end
    assert (stages[0].texts, stages[1].texts) == (["a"], ["a", "b"])
    stages[0].sink.read_on()
    await run_until_idle()
    check_whole(*stages)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of more than 2 KB are too large, and the maximal lead is 1 KB."""
    monkeypatch.setattr(read_chain, "MAX_ANSWER_BYTES", 2000)
    monkeypatch.setattr(shared_call, "MAX_LEAD_BYTES", 1000)


@pytest.mark.usefixtures("tiny")
async def test_a_too_large_answer_is_shared_by_present_readers_only() -> None:
    head, gate = asyncio.Event(), asyncio.Event()
    large = [said("x" * 500) for _ in range(10)]
    runtime = CachedHouse(Plays([*large, gate, *END], waiting=[head]), streams(*large, *END))
    early = await runtime.begin(2)
    await early[0].open(head)
    late = await runtime.begin(1)
    assert runtime.calls == 2
    await early[0].open(gate)
    assert [len(stage.texts) for stage in (*early, *late)] == [10, 10, 10]
    assert [stage.code for stage in (*early, *late)] == [None] * 3
    assert runtime.cache.stored_bytes == 0


@pytest.mark.usefixtures("tiny")
async def test_a_fast_reader_of_a_too_large_answer_waits_for_the_slow_one() -> None:
    runtime = CachedHouse(streams(*[said("x" * 500) for _ in range(40)], *END))
    slow, fast = runtime.event(ASKED), runtime.event(ASKED)
    slow.sink.stop_reading()
    await slow.begin()
    await fast.begin()
    await run_until_idle()
    read = runtime.provider.played[0].reads
    assert read < 8
    slow.sink.read_on()
    await run_until_idle()
    assert [len(stage.texts) for stage in (slow, fast)] == [40, 40]
    slow.check_nothing_is_left()


@pytest.mark.usefixtures("tiny")
async def test_a_fast_reader_continues_when_the_slow_one_leaves() -> None:
    runtime = CachedHouse(streams(*[said("x" * 500) for _ in range(40)], *END))
    slow, fast = runtime.event(ASKED), runtime.event(ASKED)
    slow.sink.stop_reading()
    await slow.begin()
    await fast.begin()
    assert not fast.is_over
    await slow.cancel()
    await run_until_idle()
    assert len(fast.texts) == 40
    fast.check_nothing_is_left()


async def test_the_memory_of_all_shared_calls_is_bounded() -> None:
    """Without memory left, an answer is relayed like one that is too large."""
    runtime = CachedHouse(streams(*[said("x" * 500) for _ in range(20)], *END), cache_bytes=4000)
    [stage] = await runtime.begin()
    assert len(stage.texts) == 20
    assert stage.code is None
    assert (runtime.cache.stored_bytes, runtime.cache._budget.used) == (0, 0)


async def test_buffered_reads_yield_to_other_tasks() -> None:
    """A thousand buffered reads would otherwise block other tasks."""
    gate = asyncio.Event()
    runtime = CachedHouse(streams(*[said("x") for _ in range(1000)], gate, *END))
    [leader] = await runtime.begin()
    await run_until_idle()
    late = await runtime.event(ASKED).begin(in_turns=10)
    assert 0 < len(late.texts) < 500
    await run_until_idle()
    assert len(late.texts) == 1000
    await leader.open(gate)
    again = await runtime.event(ASKED).begin(in_turns=10)
    assert 0 < len(again.texts) < 500
    await run_until_idle()
    assert [len(stage.texts) for stage in (leader, late, again)] == [1000] * 3


async def test_a_cancelled_read_loses_no_data() -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(streams(said("a"), gate, said("b"), *END))
    [first] = await runtime.begin()
    [second] = await runtime.begin()
    gate.set()
    first.relay.cancel(Cancelled("cancelled"))
    await run_until_idle()
    check_whole(second)


@pytest.mark.parametrize("play", [streams(said("a"), said("b"), *END), streams(said("a"), RESET), answers(), refuses()])
async def test_a_shared_call_leaves_no_reference_cycles(play: Plays) -> None:
    gate = asyncio.Event()
    runtime = CachedHouse(replace(play, connecting=[gate, *play.connecting]))
    gc.collect()
    gc.disable()
    try:
        stages = await runtime.begin(3)
        await stages[0].open(gate)
        assert all(stage.is_over for stage in stages)
        stages.clear()
        await turns()
        left = [each for each in gc.get_objects() if isinstance(each, SharedCall | SharedResponse | StepAttempt)]
        assert left == []
    finally:
        gc.enable()
