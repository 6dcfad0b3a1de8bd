"""Deadlines of one event, and how one that is reached interrupts its task and nobody else's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from bridge.errors import Cancelled, SlowClient
from bridge.relay.deadlines import Clock, Deadlines, Interrupt
from tests.support.clock import advance, turns


async def pass_s(seconds: float) -> None:
    advance(seconds)
    await turns()


class Due:
    """Deadlines, and which of them were reached, in order."""

    def __init__(self) -> None:
        self.clocks: list[Clock] = []
        self.then: Callable[[Clock], None] = lambda clock: None
        self.deadlines = Deadlines(self._on_due)

    def _on_due(self, clock: Clock) -> None:
        self.clocks.append(clock)
        self.then(clock)


async def test_a_deadline_is_told_of_once_when_it_is_reached() -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 5)
    await pass_s(4.9)
    assert due.clocks == []
    assert due.deadlines.is_set(Clock.IDLE)
    await pass_s(0.2)
    assert due.clocks == [Clock.IDLE]
    assert not due.deadlines.is_set(Clock.IDLE)
    await pass_s(1000)
    assert due.clocks == [Clock.IDLE]


async def test_several_are_told_of_in_the_order_in_which_they_are_due() -> None:
    due = Due()
    due.deadlines.set(Clock.TOTAL, 3)
    due.deadlines.set(Clock.REQUEST, 1)
    due.deadlines.set(Clock.IDLE, 2)
    due.deadlines.set(Clock.CONNECT, 9)
    await pass_s(5)
    assert due.clocks == [Clock.REQUEST, Clock.IDLE, Clock.TOTAL]
    await pass_s(5)
    assert due.clocks[-1] is Clock.CONNECT


@pytest.mark.parametrize(("then_s", "late_s"), [(10, 10), (2, 2)])
async def test_one_that_was_moved_is_reached_where_it_was_moved_to(then_s: float, late_s: float) -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 5)
    await pass_s(1)
    due.deadlines.set(Clock.IDLE, then_s)
    await pass_s(late_s - 0.1)
    assert due.clocks == []
    await pass_s(0.2)
    assert due.clocks == [Clock.IDLE]


async def test_to_move_one_into_the_future_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 5)
    loop = asyncio.get_running_loop()
    armed = []
    monkeypatch.setattr(loop, "call_at", lambda *args, **kwargs: armed.append(args))
    for _ in range(100):
        due.deadlines.set(Clock.IDLE, 5)
    due.deadlines.set(Clock.TOTAL, 60)
    assert armed == []


@pytest.mark.parametrize(("setting_ms", "is_set"), [(0, False), (1, True)])
async def test_a_setting_of_zero_is_no_limit_and_takes_one_away(setting_ms: int, is_set: bool) -> None:
    due = Due()
    due.deadlines.set_ms(Clock.IDLE, setting_ms)
    assert due.deadlines.is_set(Clock.IDLE) is is_set
    due.deadlines.set_ms(Clock.IDLE, 0)
    assert not due.deadlines.is_set(Clock.IDLE)
    await pass_s(1)
    assert due.clocks == []


async def test_those_that_were_cleared_are_not_reached() -> None:
    due = Due()
    for clock in Clock:
        due.deadlines.set(clock, 1)
    due.deadlines.clear(Clock.IDLE, Clock.HOLD, Clock.IDLE)
    due.deadlines.keep_only(Clock.TOTAL)
    await pass_s(2)
    assert due.clocks == [Clock.TOTAL]


async def test_nothing_is_reached_after_the_stop() -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 1)
    due.deadlines.stop()
    due.deadlines.stop()
    await pass_s(2)
    assert due.clocks == []


async def test_what_is_told_of_one_may_clear_or_move_the_others() -> None:
    due = Due()

    def then(clock: Clock) -> None:
        if clock is Clock.HOLD:
            due.deadlines.clear(Clock.REQUEST)
            due.deadlines.set(Clock.IDLE, 10)

    due.then = then
    due.deadlines.set(Clock.HOLD, 1)
    due.deadlines.set(Clock.REQUEST, 2)
    due.deadlines.set(Clock.IDLE, 3)
    await pass_s(5)
    assert due.clocks == [Clock.HOLD]
    await pass_s(9)
    assert due.clocks == [Clock.HOLD]
    await pass_s(2)
    assert due.clocks == [Clock.HOLD, Clock.IDLE]


# Standing still.


async def test_no_time_passes_while_the_clocks_stand_still() -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 5)
    due.deadlines.set(Clock.TOTAL, 8)
    await pass_s(3)
    due.deadlines.pause()
    await pass_s(1000)
    due.deadlines.pause()
    await pass_s(1000)
    due.deadlines.resume()
    await pass_s(1.9)
    assert due.clocks == []
    await pass_s(0.2)
    assert due.clocks == [Clock.IDLE]
    await pass_s(3)
    assert due.clocks == [Clock.IDLE, Clock.TOTAL]


async def test_nor_for_one_that_is_set_meanwhile() -> None:
    due = Due()
    due.deadlines.pause()
    await pass_s(100)
    due.deadlines.set(Clock.IDLE, 5)
    await pass_s(100)
    assert due.clocks == []
    due.deadlines.resume()
    await pass_s(4.9)
    assert due.clocks == []
    await pass_s(0.2)
    assert due.clocks == [Clock.IDLE]


async def test_to_go_on_without_having_stood_changes_nothing() -> None:
    due = Due()
    due.deadlines.set(Clock.IDLE, 5)
    due.deadlines.resume()
    due.deadlines.pause()
    due.deadlines.resume()
    due.deadlines.resume()
    await pass_s(5.1)
    assert due.clocks == [Clock.IDLE]


# Interrupting.


@asynccontextmanager
async def attached(alarm: Interrupt, run: Coroutine[object, object, object]) -> AsyncIterator["asyncio.Task[object]"]:
    """A task that `alarm` interrupts; it runs until the block is left at the latest."""

    async def body() -> object:
        alarm.attach()
        return await run

    task = asyncio.create_task(body())
    await turns()
    try:
        yield task
    finally:
        alarm.deadlines.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def catch(alarm: Interrupt) -> Clock:
    """Waits without end; which clock interrupted that."""
    try:
        return await asyncio.Future()
    except asyncio.CancelledError:
        return alarm.consume()


async def test_a_clock_interrupts_the_task_which_goes_on() -> None:
    alarm = Interrupt()

    async def run() -> list[Clock]:
        alarm.deadlines.set(Clock.CONNECT, 1)
        caught = [await catch(alarm)]
        alarm.deadlines.set(Clock.IDLE, 1)
        return [*caught, await catch(alarm)]

    async with attached(alarm, run()) as task:
        await pass_s(1.1)
        assert not task.done()
        await pass_s(1.1)
        assert await task == [Clock.CONNECT, Clock.IDLE]
        assert task.cancelling() == 0


async def test_holding_back_interrupts_nobody() -> None:
    alarm = Interrupt()
    told = []
    alarm.on_hold_over = lambda: told.append(True)
    async with attached(alarm, catch(alarm)) as task:
        alarm.deadlines.set(Clock.HOLD, 1)
        await pass_s(2)
        assert told == [True]
        assert not task.done()


@pytest.mark.parametrize("first", [Clock.REQUEST, Clock.TOTAL])
async def test_of_two_that_strike_together_the_total_is_never_lost(first: Clock) -> None:
    alarm = Interrupt()
    second = ({Clock.REQUEST, Clock.TOTAL} - {first}).pop()
    async with attached(alarm, catch(alarm)) as task:
        alarm.deadlines.set(first, 1)
        alarm.deadlines.set(second, 1.001)
        await pass_s(2)
        assert await task is Clock.TOTAL


async def test_a_cancelled_event_is_not_mistaken_for_one_that_a_clock_interrupted() -> None:
    alarm = Interrupt()
    async with attached(alarm, catch(alarm)) as task:
        alarm.cancel(Cancelled("by the client"))
        alarm.cancel(SlowClient("too late"))
        await turns()
        assert task.cancelled()
        assert isinstance(alarm.cancelled, Cancelled)


@pytest.mark.parametrize("clock_first", [True, False])
@pytest.mark.parametrize("from_outside", [True, False])
async def test_nor_when_a_clock_strikes_in_the_same_turn(clock_first: bool, from_outside: bool) -> None:
    alarm = Interrupt()
    async with attached(alarm, catch(alarm)) as task:
        strike = asyncio.get_running_loop().call_soon
        alarm.deadlines.set(Clock.IDLE, 0.5)
        advance(1)
        cancel = task.cancel if from_outside else lambda: alarm.cancel(Cancelled("by the client"))
        if clock_first:
            await asyncio.sleep(0)
        strike(cancel)
        await turns()
        assert task.cancelled()


async def test_an_event_cancelled_before_its_task_began_is_known_to_be() -> None:
    alarm = Interrupt()
    alarm.cancel(Cancelled("at once"))
    assert alarm.cancelled is not None
    async with attached(alarm, asyncio.sleep(0)) as task:
        await task


async def test_an_interruption_that_is_no_clock_s_is_passed_on() -> None:
    alarm = Interrupt()
    async with attached(alarm, catch(alarm)) as task:
        task.cancel()
        await turns()
        assert task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        Interrupt().consume()
