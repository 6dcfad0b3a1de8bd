"""Deadlines of one event: instants on the loop's clock, and the interrupt of the event's task."""

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from bridge.errors import BridgeError
from bridge.relay.second_buckets import shared_buckets


class Clock(Enum):
    """Names of an event's deadlines."""

    CONNECT = auto()
    REQUEST = auto()
    """Until the first answer item of an attempt."""
    IDLE = auto()
    """Until the next byte of a body; each read restarts it."""
    TOTAL = auto()
    """Until the end of the event, with all steps and retries."""
    HOLD = auto()
    """Until items that are held back are sent."""
    SILENCE = auto()
    """Until a stream that sent its finish mark, and nothing after it, counts as complete; each read restarts it."""
    LINGER = auto()
    """Until reading stops after the closing mark; the rest is read to keep the connection."""

    __hash__ = object.__hash__  # Enum's own is a Python function, which makes each lookup several times slower


_NEVER: Final = math.inf
_RESTARTED: Final = (Clock.IDLE, Clock.SILENCE)
"""Deadlines that each read restarts."""


class Deadlines:
    """Deadlines of one event, by clock. `on_due(clock)` is called once for each that is reached, in order.

    The callback may move or clear deadlines.

    Nothing is armed for a read: `touch` stores an instant. Nor is anything armed for a deadline that is not the event's
    first. The first one waits in a bucket that all events share, and gets a timer of its own in its last second. When
    the bucket or the timer is due, the instants are compared, since they may have moved. All deadlines are paused while
    the client does not read.
    """

    __slots__ = (
        "_armed_at",
        "_at",
        "_buckets",
        "_loop",
        "_on_due",
        "_paused_at",
        "_read_at",
        "_second",
        "_seconds",
        "_timer",
    )

    def __init__(self, on_due: Callable[[Clock], None]) -> None:
        self._buckets = shared_buckets()
        self._loop = self._buckets.loop
        self._on_due = on_due
        self._at: dict[Clock, float] = {}
        """Instants. Those of `_RESTARTED` do not count the reads since they were compared last."""
        self._read_at = -math.inf
        self._seconds: dict[Clock, float] = {}
        """Durations of `_RESTARTED`."""
        self._armed_at = _NEVER
        """The instant of the next comparison."""
        self._timer: asyncio.Handle | None = None
        self._second: int | None = None
        """The bucket in which this object waits."""
        self._paused_at: float | None = None

    def touch(self) -> None:
        """Restart IDLE and SILENCE, as far as they are set: a read has come. This is the hot path."""
        self._read_at = self._loop.time()

    def set(self, clock: Clock, seconds: float) -> None:
        """Set a deadline `seconds` from now. Paused time does not count."""
        now = self._loop.time() if self._paused_at is None else self._paused_at
        at = self._at[clock] = now + seconds
        if clock in _RESTARTED:
            self._seconds[clock] = seconds
        if at < self._armed_at:
            self._arm(at)

    def set_ms(self, clock: Clock, setting_ms: int) -> None:
        """Set a deadline from a setting in milliseconds; 0 clears it."""
        if setting_ms:
            self.set(clock, setting_ms / 1000)
        else:
            self.clear(clock)

    def is_set(self, clock: Clock) -> bool:
        return clock in self._at

    def clear(self, *clocks: Clock) -> None:
        for clock in clocks:
            self._at.pop(clock, None)

    def keep_only(self, kept: Clock) -> None:
        self._at = {kept: self._at[kept]} if kept in self._at else {}

    def stop(self) -> None:
        """Clear all deadlines and the timer."""
        self._at.clear()
        if self._armed_at != _NEVER:
            self._disarm()

    def end(self) -> None:
        """Stop for good, and drop the callback, which refers back to this object."""
        self.stop()
        self._on_due = _nothing

    def pause(self) -> None:
        """Pause all deadlines until `resume`. May be called more than once."""
        if self._paused_at is None:
            self._paused_at = self._loop.time()

    def resume(self) -> None:
        if self._paused_at is None:
            return
        paused_s = self._loop.time() - self._paused_at
        self._read_at = min(self._read_at, self._paused_at) + paused_s
        self._paused_at = None
        self._at = {clock: at + paused_s for clock, at in self._at.items()}
        self._arm_first()

    def wake(self) -> None:
        """Continue: the second of the bucket has begun."""
        self._second, self._armed_at = None, _NEVER
        if self._paused_at is None:  # else `resume` arms
            self._count_reads()
            self._arm_first()

    def _fire(self) -> None:
        self._timer, self._armed_at = None, _NEVER
        if self._paused_at is not None:
            return  # `resume` arms
        self._count_reads()
        now = self._loop.time()
        while self._at and self._at[first := min(self._at, key=self._at.__getitem__)] <= now:
            del self._at[first]
            self._on_due(first)
        self._arm_first()

    def _count_reads(self) -> None:
        """Move the deadlines that were restarted by reads."""
        for clock in _RESTARTED:
            if clock in self._at:
                self._at[clock] = max(self._at[clock], self._read_at + self._seconds[clock])

    def _arm_first(self) -> None:
        if self._at and (at := min(self._at.values())) < self._armed_at:
            self._arm(at)

    def _arm(self, at: float) -> None:
        """Compare the instants at `at`, or when its second begins."""
        if self._armed_at != _NEVER:
            self._disarm()
        second = int(at)
        if second > self._loop.time():
            self._armed_at = self._second = second
            self._buckets.add(second, self)
        else:
            self._armed_at = at
            self._timer = self._loop.call_at(at, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._second is not None:
            self._buckets.remove(self._second, self)
            self._second = None
        self._armed_at = _NEVER


class Interrupt:
    """Interrupt one event's task when a deadline is reached or the event is cancelled.

    Code that catches the CancelledError calls `consume` to learn the reason.
    """

    def __init__(self) -> None:
        self.deadlines = Deadlines(self._fire)
        self.on_hold_over: Callable[[], None] = _nothing
        """Called for Clock.HOLD, which does not interrupt the task."""
        self.on_interrupt: Callable[[], None] = _nothing
        """Called before the task is interrupted, to stop what feeds it."""
        self.cancelled: BridgeError | None = None
        self._task: asyncio.Task[object] | None = None
        self._fired: Clock | None = None

    def attach(self) -> None:
        """Register the current task as the one to interrupt."""
        self._task = asyncio.current_task()

    def cancel(self, error: BridgeError) -> None:
        """Cancel the event with `error`. The first call wins. A task that has not started reads `cancelled`."""
        if self.cancelled is None:
            self.cancelled = error
            self.on_interrupt()
            if self._task is not None:
                self._task.cancel()

    def detach(self) -> None:
        """End the deadlines and drop all references to the event."""
        self.deadlines.end()
        self.reset_hooks()
        self._task = None

    def reset_hooks(self) -> None:
        """Remove the hooks of an attempt."""
        self.on_hold_over = self.on_interrupt = _nothing

    def consume(self) -> Clock:
        """Return the clock that interrupted the task and let the task go on.

        Raises CancelledError if the task was also cancelled for another reason.
        """
        clock, self._fired = self._fired, None
        if clock is None or self.cancelled is not None or self._task is None or self._task.uncancel():
            raise asyncio.CancelledError
        return clock

    def _fire(self, clock: Clock) -> None:
        if clock is Clock.HOLD:
            self.on_hold_over()
        elif self._fired is None and self._task is not None:
            self._fired = clock
            self.on_interrupt()
            self._task.cancel()
        elif clock is Clock.TOTAL:
            self._fired = clock  # the task is being cancelled already; TOTAL is never set again, so it must be recorded


def _nothing(*_: object) -> None: ...
