"""Objects are woken when their second begins, with one timer for all of them, and leave nothing behind."""

import asyncio
from collections.abc import Callable

import pytest

from bridge.relay.second_buckets import WOKEN_PER_TURN, SecondBuckets, shared_buckets
from tests.support.clock import advance, run_until_idle, turns


class Asleep:
    """Records that it was woken."""

    def __init__(self) -> None:
        self.woken = 0
        self.then: Callable[[], None] = lambda: None

    def wake(self) -> None:
        self.woken += 1
        self.then()


@pytest.fixture
async def buckets() -> SecondBuckets:
    return SecondBuckets(asyncio.get_running_loop())


def in_s(seconds: int) -> int:
    """Return the number of the second that begins in up to so many seconds."""
    return int(asyncio.get_running_loop().time()) + seconds


def advance_to(second: float) -> None:
    advance(second - asyncio.get_running_loop().time())


def armed_timers() -> int:
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio has no public access to it
    return sum(not timer.cancelled() for timer in timers)


async def test_an_object_is_woken_once_when_its_second_begins(buckets: SecondBuckets) -> None:
    sleeper, second = Asleep(), in_s(10)
    buckets.add(second, sleeper)
    advance_to(second - 0.1)
    await turns()
    assert sleeper.woken == 0
    advance_to(second)
    await turns()
    assert sleeper.woken == 1
    advance(100)
    await turns()
    assert (sleeper.woken, len(buckets)) == (1, 0)


async def test_objects_are_woken_in_the_order_of_their_seconds(buckets: SecondBuckets) -> None:
    woken: list[int] = []
    for seconds in (5, 3, 9):
        sleeper = Asleep()
        sleeper.then = lambda seconds=seconds: woken.append(seconds)
        buckets.add(in_s(seconds), sleeper)
    advance(6)
    await turns()
    assert woken == [3, 5]
    advance(60)
    await turns()
    assert woken == [3, 5, 9]


async def test_an_object_that_was_removed_is_not_woken(buckets: SecondBuckets) -> None:
    sleepers = [Asleep() for _ in range(3)]
    for sleeper in sleepers:
        buckets.add(second := in_s(5), sleeper)
    buckets.remove(second, sleepers[0])
    advance(6)
    await turns()
    assert [sleeper.woken for sleeper in sleepers] == [0, 1, 1]


async def test_one_timer_is_armed_for_objects_of_many_seconds(buckets: SecondBuckets) -> None:
    before = armed_timers()
    for seconds in range(100, 1, -1):
        buckets.add(in_s(seconds), Asleep())
    assert armed_timers() == before + 1
    advance(50)
    await turns()
    assert armed_timers() == before + 1
    advance(60)
    await turns()
    assert (armed_timers(), len(buckets)) == (before, 0)


async def test_many_objects_that_come_and_go_leave_nothing_behind(buckets: SecondBuckets) -> None:
    before = armed_timers()
    for count in range(5000):
        sleeper, second = Asleep(), in_s(2 + count % 600)
        buckets.add(second, sleeper)
        buckets.remove(second, sleeper)
    assert (len(buckets), buckets._buckets) == (0, {})
    assert armed_timers() <= before + 1
    advance(3)
    await turns()
    assert armed_timers() == before


async def test_a_woken_object_may_wait_again(buckets: SecondBuckets) -> None:
    sleeper = Asleep()
    sleeper.then = lambda: buckets.add(in_s(2), sleeper)
    buckets.add(in_s(2), sleeper)
    for woken in range(1, 4):
        advance(2)
        await turns()
        assert sleeper.woken == woken


async def test_other_callbacks_run_between_many_that_are_woken_in_one_second(buckets: SecondBuckets) -> None:
    sleepers = [Asleep() for _ in range(3 * WOKEN_PER_TURN)]
    for place, sleeper in enumerate(sleepers):
        buckets.add(in_s(5 + place % 2), sleeper)
    advance(7)
    counts = []
    for _ in range(5):
        await turns(1)
        counts.append(sum(sleeper.woken for sleeper in sleepers))
    assert max(count - before for before, count in zip([0, *counts], counts, strict=False)) == WOKEN_PER_TURN
    await run_until_idle()
    assert all(sleeper.woken == 1 for sleeper in sleepers)


async def test_users_of_one_loop_share_their_buckets() -> None:
    assert shared_buckets() is shared_buckets()
    assert shared_buckets().loop is asyncio.get_running_loop()
    here, there = shared_buckets(), await asyncio.to_thread(lambda: asyncio.run(_shared()))
    assert there is not here
    assert shared_buckets() is here


async def _shared() -> SecondBuckets:
    return shared_buckets()
