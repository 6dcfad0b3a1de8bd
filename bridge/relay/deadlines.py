"""The clocks of one event: instants on the loop's clock, one timer for all of them, and how they interrupt its task."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from bridge.errors import BridgeError


class Clock(Enum):
    """What a deadline is for."""

    CONNECT = auto()
    REQUEST = auto()
    """The first answer item, of one attempt."""
    IDLE = auto()
    """The next byte of a body."""
    TOTAL = auto()
    """The event, with all its steps and retries."""
    HOLD = auto()
    """Bookkeeping is held back no longer."""
    SILENCE = auto()
    """The finish mark came, and then nothing."""
    LINGER = auto()
    """The closing mark came; the body is read to its end, to keep the connection."""


class Deadlines:
    """Calls `on_due(clock)` once for each deadline that is reached, in their order; it may move or clear the others.

    Moving a deadline into the future costs an assignment: the timer finds out when it fires. While the client does not
    read, all clocks stand still.
    """

    __slots__ = ("_at", "_loop", "_on_due", "_paused_at", "_timer")

    def __init__(self, on_due: Callable[[Clock], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_due = on_due
        self._at: dict[Clock, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._paused_at: float | None = None

    def set(self, clock: Clock, seconds: float) -> None:
        """Due in so many seconds from now, of which none pass while the clocks stand still."""
        now = self._loop.time() if self._paused_at is None else self._paused_at
        at = self._at[clock] = now + seconds
        if self._timer is None or at < self._timer.when():
            self._arm(at)

    def set_ms(self, clock: Clock, setting_ms: int) -> None:
        """As a setting says it: 0 is no limit."""
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
        """No deadline is left, and no timer."""
        self._at.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """For good: whoever it called is let go of, who holds this in turn."""
        self.stop()
        self._on_due = _nothing_due

    def pause(self) -> None:
        """Until `go_on`; once is enough."""
        if self._paused_at is None:
            self._paused_at = self._loop.time()

    def resume(self) -> None:
        if self._paused_at is None:
            return
        stood = self._loop.time() - self._paused_at
        self._paused_at = None
        self._at = {clock: at + stood for clock, at in self._at.items()}
        if self._at and self._timer is None:
            self._arm(min(self._at.values()))

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._paused_at is not None:
            return  # go_on arms again
        now = self._loop.time()
        while self._at and self._at[first := min(self._at, key=self._at.__getitem__)] <= now:
            del self._at[first]
            self._on_due(first)
        if self._at:
            self._arm(min(self._at.values()))


class Interrupt:
    """Interrupts one event's task: when one of its deadlines is reached, or when it is cancelled.

    Whoever catches the CancelledError asks `caught` which it was.
    """

    def __init__(self) -> None:
        self.deadlines = Deadlines(self._fire)
        self.on_hold_over: Callable[[], None] = _nothing
        """Called for Clock.HOLD, which interrupts nobody."""
        self.cancelled: BridgeError | None = None
        self._task: asyncio.Task[object] | None = None
        self._fired: Clock | None = None

    def attach(self) -> None:
        """The running task is the one to interrupt."""
        self._task = asyncio.current_task()

    def cancel(self, error: BridgeError) -> None:
        """For good: `error` is the event's. A task that has not begun sees it at its beginning."""
        if self.cancelled is None:
            self.cancelled = error
            if self._task is not None:
                self._task.cancel()

    def detach(self) -> None:
        """The event is over: nothing strikes any more, and nothing of it is kept alive from here."""
        self.deadlines.end()
        self.on_hold_over = _nothing
        self._task = None

    def consume(self) -> Clock:
        """The clock that interrupted the task, which goes on. Raises CancelledError if it was not a clock alone."""
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
            self._fired = clock  # the blow is on its way, and this one must not be lost: nobody sets it again


def _nothing() -> None: ...


def _nothing_due(_: Clock) -> None: ...
