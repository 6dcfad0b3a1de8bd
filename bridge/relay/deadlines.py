"""Deadlines of one event: instants on the loop's clock that share one timer, and the interrupt of the event's task."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from bridge.errors import BridgeError


class Clock(Enum):
    """Names of an event's deadlines."""

    CONNECT = auto()
    REQUEST = auto()
    """Until the first answer item of an attempt."""
    IDLE = auto()
    """Until the next byte of a body."""
    TOTAL = auto()
    """Until the end of the event, with all steps and retries."""
    HOLD = auto()
    """Until items that are held back are sent."""
    SILENCE = auto()
    """Until a stream that sent its finish mark, and nothing after it, counts as complete."""
    LINGER = auto()
    """Until reading stops after the closing mark; the rest is read to keep the connection."""


class Deadlines:
    """Deadlines of one event, by clock. `on_due(clock)` is called once for each that is reached, in order.

    The callback may move or clear deadlines.

    Moving a deadline into the future costs one assignment: the timer notices when it fires. All deadlines are paused
    while the client does not read.
    """

    __slots__ = ("_at", "_loop", "_on_due", "_paused_at", "_timer", "_timer_at")

    def __init__(self, on_due: Callable[[Clock], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_due = on_due
        self._at: dict[Clock, float] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # not read from the handle: uvloop returns one without `when` for a time that has come
        self._paused_at: float | None = None

    def set(self, clock: Clock, seconds: float) -> None:
        """Set a deadline `seconds` from now. Paused time does not count."""
        now = self._loop.time() if self._paused_at is None else self._paused_at
        at = self._at[clock] = now + seconds
        if self._timer is None or at < self._timer_at:
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
        self._at = {clock: at for clock, at in self._at.items() if clock is kept}

    def stop(self) -> None:
        """Clear all deadlines and the timer."""
        self._at.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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
        self._paused_at = None
        self._at = {clock: at + paused_s for clock, at in self._at.items()}
        if self._at and self._timer is None:
            self._arm(min(self._at.values()))

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(at, self._fire), at

    def _fire(self) -> None:
        self._timer = None
        if self._paused_at is not None:
            return  # `resume` arms the timer
        now = self._loop.time()
        while self._at and self._at[first := min(self._at, key=self._at.__getitem__)] <= now:
            del self._at[first]
            self._on_due(first)
        if self._at:
            self._arm(min(self._at.values()))


class Interrupt:
    """Interrupt one event's task when a deadline is reached or the event is cancelled.

    Code that catches the CancelledError calls `consume` to learn the reason.
    """

    def __init__(self) -> None:
        self.deadlines = Deadlines(self._fire)
        self.on_hold_over: Callable[[], None] = _nothing
        """Called for Clock.HOLD, which does not interrupt the task."""
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
            if self._task is not None:
                self._task.cancel()

    def detach(self) -> None:
        """End the deadlines and drop all references to the event."""
        self.deadlines.end()
        self.on_hold_over = _nothing
        self._task = None

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
            self._task.cancel()
        elif clock is Clock.TOTAL:
            self._fired = clock  # the task is being cancelled already; TOTAL is never set again, so it must be recorded


def _nothing(*_: object) -> None: ...
