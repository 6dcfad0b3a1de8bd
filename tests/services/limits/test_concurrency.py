"""Turns: never more than the limit, first come first served, and nothing left behind."""

import asyncio
from collections.abc import Callable

import pytest

from bridge.errors import TooManyEvents
from bridge.services.limits.concurrency import MAX_WAITING_PER_SLOT, ConcurrencyLimiter
from tests.support.clock import advance, run_until_idle, turns

MAX_WAIT_MS = 10_000


class Crowd:
    """Events that want a turn at one key."""

    def __init__(self, limit: int) -> None:
        self.limiter = ConcurrencyLimiter()
        self.limit = limit
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[Callable[[], None]]] = {}

    async def come(self, name: str, max_wait_ms: int = MAX_WAIT_MS) -> None:
        self._tasks[name] = asyncio.create_task(self._enter(name, max_wait_ms))
        await run_until_idle()

    async def _enter(self, name: str, max_wait_ms: int) -> Callable[[], None]:
        release = await self.limiter.acquire("key", self.limit, max_wait_ms, "us")
        self.inside.append(name)
        return release

    async def go(self, name: str) -> None:
        self._tasks[name].result()()
        self.inside.remove(name)
        await run_until_idle()

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()

    def refused(self, name: str) -> TooManyEvents:
        error = self._tasks[name].exception()
        assert isinstance(error, TooManyEvents)
        return error


async def test_slots_are_granted_in_order_of_arrival():
    crowd = Crowd(2)
    for name in "abcde":
        await crowd.come(name)
    assert crowd.inside == ["a", "b"]
    await crowd.go("b")
    assert crowd.inside == ["a", "c"]
    await crowd.go("a")
    await crowd.go("c")
    assert crowd.inside == ["d", "e"]


async def test_a_new_event_does_not_overtake_waiting_events():
    crowd = Crowd(1)
    for name in "ab":
        await crowd.come(name)
    release = crowd._tasks["a"].result()
    release()  # it is b's turn, though b has not run yet
    await crowd.come("c")
    assert crowd.inside == ["a", "b"]


async def test_a_cancelled_event_leaves_the_queue_at_once():
    crowd = Crowd(1)
    for name in "abc":
        await crowd.come(name)
    crowd.cancel("b")
    await run_until_idle()
    await crowd.go("a")
    assert crowd.inside == ["c"]


async def test_an_event_cancelled_with_a_granted_slot_passes_the_slot_on():
    """Both in one turn of the loop, in either order."""
    for order in ("turn first", "cancel first"):
        crowd = Crowd(1)
        for name in "abc":
            await crowd.come(name)
        acts = [crowd._tasks["a"].result(), lambda crowd=crowd: crowd.cancel("b")]
        for act in acts if order == "turn first" else acts[::-1]:
            act()
        await run_until_idle()
        assert crowd.inside == ["a", "c"], order


async def test_no_event_waits_longer_than_max_wait():
    crowd = Crowd(1)
    for name in "ab":
        await crowd.come(name)
    advance(MAX_WAIT_MS / 1000 - 0.1)
    await run_until_idle()
    assert not crowd._tasks["b"].done()
    advance(0.2)
    await run_until_idle()
    error = crowd.refused("b")
    assert (error.code, error.status, error.retryable, error.retry_after_ms) == (9005, 429, True, 1000)
    assert "10000 ms (max_wait)" in str(error)
    await crowd.go("a")
    assert len(crowd.limiter) == 0


async def test_at_most_four_events_wait_per_slot():
    crowd = Crowd(2)
    for number in range(2 + 2 * MAX_WAITING_PER_SLOT):
        await crowd.come(str(number))
    await crowd.come("one more")
    assert "8 wait for a slot" in str(crowd.refused("one more"))
    crowd.cancel("5")
    await run_until_idle()
    await crowd.come("in its place")
    assert not crowd._tasks["in its place"].done()


async def test_without_max_wait_there_is_no_queue():
    crowd = Crowd(1)
    await crowd.come("a", max_wait_ms=0)
    await crowd.come("b", max_wait_ms=0)
    crowd.refused("b")
    assert crowd.inside == ["a"]


async def test_a_raised_limit_applies_to_waiting_events_with_the_next_arrival():
    crowd = Crowd(1)
    for name in "abc":
        await crowd.come(name)
    crowd.limit = 3
    await crowd.come("d")
    assert crowd.inside == ["a", "b", "c"]
    await crowd.go("a")
    assert crowd.inside == ["b", "c", "d"]


async def test_a_lowered_limit_keeps_granted_slots_and_grants_no_more():
    crowd = Crowd(3)
    for name in "abc":
        await crowd.come(name)
    crowd.limit = 1
    await crowd.come("d")
    await crowd.go("a")
    await crowd.go("b")
    assert crowd.inside == ["c"]
    await crowd.go("c")
    assert crowd.inside == ["d"]


async def test_an_unused_key_leaves_nothing_behind():
    crowd = Crowd(1)
    for name in "ab":
        await crowd.come(name)
    assert len(crowd.limiter) == 1
    await crowd.go("a")
    await crowd.go("b")
    assert len(crowd.limiter) == 0


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_thousand_events_never_exceed_the_limit(limit: int):
    lines, inside, most, done = ConcurrencyLimiter(), 0, 0, 0

    async def event(number: int) -> None:
        nonlocal inside, most, done
        release = await lines.acquire("key", limit, MAX_WAIT_MS, "us")
        inside += 1
        most = max(most, inside)
        await turns(number % 4)
        inside -= 1
        done += 1
        release()

    async def client() -> None:
        for number in range(1000 // (4 * limit)):
            await event(number)

    await asyncio.gather(*(client() for _ in range(4 * limit)))
    assert (most, done) == (limit, 1000 // (4 * limit) * 4 * limit)
    assert len(lines) == 0
