"""Deadlines of one event, and the interrupt of its task."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from bridge.errors import Cancelled, SlowClient
from bridge.relay.deadlines import Clock, Deadlines, Interrupt
from bridge.relay.second_buckets import shared_buckets
from tests.support.clock import advance, freeze, run_until_idle


async def run_for(seconds: float) -> None:
    freeze()
    advance(seconds)
    await run_until_idle()


class FiredDeadlines:
    """Deadlines, and the clocks of those that fired, in order."""

    def __init__(self) -> None:
        self.clocks: list[Clock] = []
        self.callback: Callable[[Clock], None] = lambda clock: None
        self.deadlines = Deadlines(self._on_due)

    def _on_due(self, clock: Clock) -> None:
        self.clocks.append(clock)
        self.callback(clock)


async def test_a_deadline_fires_once() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    await run_for(4.9)
    assert fired.clocks == []
    assert fired.deadlines.is_set(Clock.IDLE)
    await run_for(0.2)
    assert fired.clocks == [Clock.IDLE]
    assert not fired.deadlines.is_set(Clock.IDLE)
    await run_for(1000)
    assert fired.clocks == [Clock.IDLE]


async def test_deadlines_fire_in_the_order_of_their_times() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.TOTAL, 3)
    fired.deadlines.set(Clock.REQUEST, 1)
    fired.deadlines.set(Clock.IDLE, 2)
    fired.deadlines.set(Clock.CONNECT, 9)
    await run_for(5)
    assert fired.clocks == [Clock.REQUEST, Clock.IDLE, Clock.TOTAL]
    await run_for(5)
    assert fired.clocks[-1] is Clock.CONNECT


def test_a_deadline_is_set_while_another_is_due_on_uvloop() -> None:
    async def run() -> list[Clock]:
        fired, reached = FiredDeadlines(), asyncio.Event()
        fired.callback = lambda clock: reached.set()
        fired.deadlines.set(Clock.IDLE, 0)
        fired.deadlines.set(Clock.TOTAL, 5)
        await reached.wait()
        fired.deadlines.end()
        return fired.clocks

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == [Clock.IDLE]


@pytest.mark.parametrize(("then_s", "late_s"), [(10, 10), (2, 2)])
async def test_a_moved_deadline_fires_at_its_new_time(then_s: float, late_s: float) -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    await run_for(1)
    fired.deadlines.set(Clock.IDLE, then_s)
    await run_for(late_s - 0.1)
    assert fired.clocks == []
    await run_for(0.2)
    assert fired.clocks == [Clock.IDLE]


async def test_moving_a_deadline_into_the_future_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    loop = asyncio.get_running_loop()
    armed = []
    monkeypatch.setattr(loop, "call_at", lambda *args, **kwargs: armed.append(args))
    for _ in range(100):
        fired.deadlines.set(Clock.IDLE, 5)
    fired.deadlines.set(Clock.TOTAL, 60)
    assert armed == []


@pytest.mark.parametrize(("setting_ms", "is_set"), [(0, False), (1, True)])
async def test_a_setting_of_zero_clears_the_deadline(setting_ms: int, is_set: bool) -> None:
    fired = FiredDeadlines()
    fired.deadlines.set_ms(Clock.IDLE, setting_ms)
    assert fired.deadlines.is_set(Clock.IDLE) is is_set
    fired.deadlines.set_ms(Clock.IDLE, 0)
    assert not fired.deadlines.is_set(Clock.IDLE)
    await run_for(1)
    assert fired.clocks == []


async def test_cleared_deadlines_do_not_fire() -> None:
    fired = FiredDeadlines()
    for clock in Clock:
        fired.deadlines.set(clock, 1)
    fired.deadlines.clear(Clock.IDLE, Clock.HOLD, Clock.IDLE)
    fired.deadlines.keep_only(Clock.TOTAL)
    await run_for(2)
    assert fired.clocks == [Clock.TOTAL]


async def test_no_deadline_fires_after_stop() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 1)
    fired.deadlines.stop()
    fired.deadlines.stop()
    await run_for(2)
    assert fired.clocks == []


async def test_the_callback_may_clear_or_move_other_deadlines() -> None:
    fired = FiredDeadlines()

    def callback(clock: Clock) -> None:
        if clock is Clock.HOLD:
            fired.deadlines.clear(Clock.REQUEST)
            fired.deadlines.set(Clock.IDLE, 10)

    fired.callback = callback
    fired.deadlines.set(Clock.HOLD, 1)
    fired.deadlines.set(Clock.REQUEST, 2)
    fired.deadlines.set(Clock.IDLE, 3)
    await run_for(5)
    assert fired.clocks == [Clock.HOLD]
    await run_for(9)
    assert fired.clocks == [Clock.HOLD]
    await run_for(2)
    assert fired.clocks == [Clock.HOLD, Clock.IDLE]


# Reads.


RESTARTED = [Clock.IDLE, Clock.SILENCE]


@pytest.mark.parametrize("clock", RESTARTED)
async def test_a_read_restarts_idle_and_silence(clock: Clock) -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(clock, 5)
    for _ in range(10):
        await run_for(4)
        fired.deadlines.touch()
    await run_for(4.9)
    assert fired.clocks == []
    await run_for(0.2)
    assert fired.clocks == [clock]


async def test_a_read_restarts_a_deadline_in_its_last_second_too() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 0.5)
    for _ in range(10):
        await run_for(0.4)
        fired.deadlines.touch()
    assert fired.clocks == []
    await run_for(0.6)
    assert fired.clocks == [Clock.IDLE]


async def test_a_read_restarts_nothing_else_and_sets_nothing() -> None:
    fired = FiredDeadlines()
    others = [clock for clock in Clock if clock not in RESTARTED]
    for seconds, clock in enumerate(others, 3):
        fired.deadlines.set(clock, seconds)
    await run_for(2)
    fired.deadlines.touch()
    await run_for(100)
    assert fired.clocks == others


async def test_a_deadline_that_is_set_after_a_read_counts_from_then() -> None:
    fired = FiredDeadlines()
    fired.deadlines.touch()
    await run_for(3)
    fired.deadlines.set(Clock.IDLE, 5)
    await run_for(4.9)
    assert fired.clocks == []
    fired.deadlines.set(Clock.IDLE, 1)
    await run_for(1.1)
    assert fired.clocks == [Clock.IDLE]


async def test_a_read_arms_no_timer_and_enters_no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    loop, armed = asyncio.get_running_loop(), list[object]()
    monkeypatch.setattr(loop, "call_at", lambda *args, **kwargs: armed.append(args))
    before = len(shared_buckets())
    for _ in range(100):
        advance(0.01)
        fired.deadlines.touch()
    assert (armed, len(shared_buckets())) == ([], before)


async def test_many_events_share_one_timer_until_the_last_second() -> None:
    def timers() -> int:
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # no public access
        return sum(not timer.cancelled() for timer in scheduled)

    before, events = timers(), [FiredDeadlines() for _ in range(100)]
    for place, fired in enumerate(events):
        fired.deadlines.set(Clock.CONNECT, 10 + place % 3)
        fired.deadlines.set(Clock.IDLE, 300)
        fired.deadlines.set(Clock.TOTAL, 0.5 + place)
    assert timers() <= before + 3
    for fired in events:
        fired.deadlines.end()
    assert (timers(), len(shared_buckets())) == (before + 1, 0)


# Pausing.


async def test_paused_deadlines_do_not_advance() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    fired.deadlines.set(Clock.TOTAL, 8)
    await run_for(3)
    fired.deadlines.pause()
    await run_for(1000)
    fired.deadlines.pause()
    await run_for(1000)
    fired.deadlines.resume()
    await run_for(1.9)
    assert fired.clocks == []
    await run_for(0.2)
    assert fired.clocks == [Clock.IDLE]
    await run_for(3)
    assert fired.clocks == [Clock.IDLE, Clock.TOTAL]


async def test_a_deadline_set_while_paused_starts_at_resume() -> None:
    fired = FiredDeadlines()
    fired.deadlines.pause()
    await run_for(100)
    fired.deadlines.set(Clock.IDLE, 5)
    await run_for(100)
    assert fired.clocks == []
    fired.deadlines.resume()
    await run_for(4.9)
    assert fired.clocks == []
    await run_for(0.2)
    assert fired.clocks == [Clock.IDLE]


async def test_a_read_while_paused_counts_as_one_at_the_pause() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    await run_for(3)
    fired.deadlines.pause()
    await run_for(100)
    fired.deadlines.touch()
    await run_for(100)
    fired.deadlines.resume()
    await run_for(4.9)
    assert fired.clocks == []
    await run_for(0.2)
    assert fired.clocks == [Clock.IDLE]


async def test_resume_without_pause_changes_nothing() -> None:
    fired = FiredDeadlines()
    fired.deadlines.set(Clock.IDLE, 5)
    fired.deadlines.resume()
    fired.deadlines.pause()
    fired.deadlines.resume()
    fired.deadlines.resume()
    await run_for(5.1)
    assert fired.clocks == [Clock.IDLE]


# Interrupting.


@asynccontextmanager
async def attached(
    interrupt: Interrupt, run: Coroutine[object, object, object]
) -> AsyncIterator["asyncio.Task[object]"]:
    """Run a task that `interrupt` interrupts; it is cancelled at the end of the block."""

    async def body() -> object:
        interrupt.attach()
        return await run

    task = asyncio.create_task(body())
    await run_until_idle()
    try:
        yield task
    finally:
        interrupt.deadlines.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_for_interrupt(interrupt: Interrupt) -> Clock:
    """Wait without end, and return the clock that interrupted it."""
    try:
        return await asyncio.Future()
    except asyncio.CancelledError:
        return interrupt.consume()


async def test_a_deadline_interrupts_the_task_which_can_continue() -> None:
    interrupt = Interrupt()

    async def run() -> list[Clock]:
        interrupt.deadlines.set(Clock.CONNECT, 1)
        consumed = [await wait_for_interrupt(interrupt)]
        interrupt.deadlines.set(Clock.IDLE, 1)
        return [*consumed, await wait_for_interrupt(interrupt)]

    async with attached(interrupt, run()) as task:
        await run_for(1.1)
        assert not task.done()
        await run_for(1.1)
        assert await task == [Clock.CONNECT, Clock.IDLE]
        assert task.cancelling() == 0


async def test_the_hold_deadline_does_not_interrupt_the_task() -> None:
    interrupt = Interrupt()
    calls = []
    interrupt.on_hold_over = lambda: calls.append(True)
    async with attached(interrupt, wait_for_interrupt(interrupt)) as task:
        interrupt.deadlines.set(Clock.HOLD, 1)
        await run_for(2)
        assert calls == [True]
        assert not task.done()


@pytest.mark.parametrize("first", [Clock.REQUEST, Clock.TOTAL])
async def test_the_total_deadline_takes_precedence_over_one_at_the_same_time(first: Clock) -> None:
    interrupt = Interrupt()
    second = ({Clock.REQUEST, Clock.TOTAL} - {first}).pop()
    async with attached(interrupt, wait_for_interrupt(interrupt)) as task:
        interrupt.deadlines.set(first, 1)
        interrupt.deadlines.set(second, 1.001)
        await run_for(2)
        assert await task is Clock.TOTAL


async def test_consume_raises_if_the_event_was_cancelled() -> None:
    interrupt = Interrupt()
    async with attached(interrupt, wait_for_interrupt(interrupt)) as task:
        interrupt.cancel(Cancelled("by the client"))
        interrupt.cancel(SlowClient("second cancel"))
        await run_until_idle()
        assert task.cancelled()
        assert isinstance(interrupt.cancelled, Cancelled)


@pytest.mark.parametrize("clock_first", [True, False])
@pytest.mark.parametrize("from_outside", [True, False])
async def test_consume_raises_if_a_deadline_and_a_cancel_coincide(clock_first: bool, from_outside: bool) -> None:
    interrupt = Interrupt()
    async with attached(interrupt, wait_for_interrupt(interrupt)) as task:
        call_soon = asyncio.get_running_loop().call_soon
        interrupt.deadlines.set(Clock.IDLE, 0.5)
        advance(1)
        cancel = task.cancel if from_outside else lambda: interrupt.cancel(Cancelled("by the client"))
        if clock_first:
            await asyncio.sleep(0)
        call_soon(cancel)
        await run_until_idle()
        assert task.cancelled()


async def test_a_cancel_before_the_task_starts_is_recorded() -> None:
    interrupt = Interrupt()
    interrupt.cancel(Cancelled("by the client"))
    assert interrupt.cancelled is not None
    async with attached(interrupt, asyncio.sleep(0)) as task:
        await task


async def test_consume_raises_if_no_deadline_fired() -> None:
    interrupt = Interrupt()
    async with attached(interrupt, wait_for_interrupt(interrupt)) as task:
        task.cancel()
        await run_until_idle()
        assert task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        Interrupt().consume()
