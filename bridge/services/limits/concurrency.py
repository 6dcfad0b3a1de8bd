"""Turns at what only so many events may use at once: first come, first served, by one process."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final

from bridge.errors import TooManyInFlight
from bridge.services.limits.budgets import SOON_MS

WAITING_PER_TURN: Final = 4
"""How many may wait in line for each one that has a turn: what waits is held in memory."""


class SlotQueue:
    """Of one key."""

    def __init__(self) -> None:
        self.limit = 0
        """As it was asked for last."""
        self.in_use = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()
        """Those that come first stand first; told whether their turn has come, or their time is over."""

    @property
    def is_idle(self) -> bool:
        return not self.in_use and not self.waiting

    def wake(self) -> None:
        """Whoever's turn it is."""
        while self.waiting and self.in_use < self.limit:
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.in_use += 1
                waiter.set_result(True)


class ConcurrencyLimiter:
    """A line for each key that is in use; what nobody uses leaves nothing behind."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, SlotQueue] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def acquire(self, key: Hashable, limit: int, max_wait_ms: int, whose: str) -> Callable[[], None]:
        """Returns what gives the turn back, to be called once. Cancelled, it leaves the line at once.

        The newest `limit` counts, for those in line too. Raises TooManyInFlight.
        """
        line = self._lines.setdefault(key, SlotQueue())
        line.limit = limit
        line.wake()
        if line.in_use < limit and not line.waiting:
            line.in_use += 1
        else:
            await self._wait(key, line, max_wait_ms, whose)
        return partial(self._release, key, line)

    async def _wait(self, key: Hashable, line: SlotQueue, max_wait_ms: int, whose: str) -> None:
        if not max_wait_ms or len(line.waiting) >= line.limit * WAITING_PER_TURN:
            raise _too_many(line, whose, f"and {len(line.waiting)} wait for a turn")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        line.waiting.append(waiter)
        timer = loop.call_later(max_wait_ms / 1000, _time_over, waiter)
        try:
            has_turn = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._release(key, line)
            raise
        finally:
            timer.cancel()
            if waiter in line.waiting:
                line.waiting.remove(waiter)
            self._forget_if_idle(key, line)
        if not has_turn:
            raise _too_many(line, whose, f"and none ended within {max_wait_ms} ms (max_wait)")

    def _release(self, key: Hashable, line: SlotQueue) -> None:
        line.in_use -= 1
        line.wake()
        self._forget_if_idle(key, line)

    def _forget_if_idle(self, key: Hashable, line: SlotQueue) -> None:
        if line.is_idle and self._lines.get(key) is line:
            del self._lines[key]


def _time_over(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)


def _too_many(line: SlotQueue, whose: str, why: str) -> TooManyInFlight:
    return TooManyInFlight(f"{line.in_use} events are in flight for {whose}, {why}", retry_after_ms=SOON_MS)
