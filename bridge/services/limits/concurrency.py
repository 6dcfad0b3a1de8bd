"""Concurrency limit with a first-come, first-served wait queue, for the events of one process."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final

from bridge.errors import TooManyEvents
from bridge.services.limits.budgets import SOON_MS

MAX_WAITING_PER_SLOT: Final = 4
"""Waiting events allowed per slot; more are refused, because waiting events occupy memory."""


class SlotQueue:
    """Slots in use and waiting events of one key."""

    def __init__(self) -> None:
        self.limit = 0
        """The limit of the most recent `acquire`."""
        self.in_use = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()
        """In order of arrival. The result is True when a slot was granted, False when the wait timed out."""

    @property
    def is_idle(self) -> bool:
        return not self.in_use and not self.waiting

    def wake(self) -> None:
        """Grant free slots to the first waiting events."""
        while self.waiting and self.in_use < self.limit:
            waiter = self.waiting.popleft()
            if not waiter.done():
                self.in_use += 1
                waiter.set_result(True)


class ConcurrencyLimiter:
    """One slot queue per key. Idle keys are removed."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, SlotQueue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def acquire(self, key: Hashable, limit: int, max_wait_ms: int, whose: str) -> Callable[[], None]:
        """Wait for a slot and return the function that releases it, to be called exactly once.

        The most recent `limit` applies, also to events that already wait. Cancellation leaves the queue at once. Raises
        TooManyEvents if the queue is full or `max_wait_ms` has passed.
        """
        queue = self._queues.setdefault(key, SlotQueue())
        queue.limit = limit
        queue.wake()
        if queue.in_use < limit and not queue.waiting:
            queue.in_use += 1
        else:
            await self._wait(key, queue, max_wait_ms, whose)
        return partial(self._release, key, queue)

    async def _wait(self, key: Hashable, queue: SlotQueue, max_wait_ms: int, whose: str) -> None:
        if not max_wait_ms or len(queue.waiting) >= queue.limit * MAX_WAITING_PER_SLOT:
            raise _too_many(queue, whose, f"and {len(queue.waiting)} wait for a slot")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        queue.waiting.append(waiter)
        timer = loop.call_later(max_wait_ms / 1000, _expire, waiter)
        try:
            granted = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._release(key, queue)
            raise
        finally:
            timer.cancel()
            if waiter in queue.waiting:
                queue.waiting.remove(waiter)
            self._forget_if_idle(key, queue)
        if not granted:
            raise _too_many(queue, whose, f"and none ended within {max_wait_ms} ms (max_wait)")

    def _release(self, key: Hashable, queue: SlotQueue) -> None:
        queue.in_use -= 1
        queue.wake()
        self._forget_if_idle(key, queue)

    def _forget_if_idle(self, key: Hashable, queue: SlotQueue) -> None:
        if queue.is_idle and self._queues.get(key) is queue:
            del self._queues[key]


def _expire(waiter: "asyncio.Future[bool]") -> None:
    if not waiter.done():
        waiter.set_result(False)


def _too_many(queue: SlotQueue, whose: str, reason: str) -> TooManyEvents:
    return TooManyEvents(f"{queue.in_use} events are in flight for {whose}, {reason}", retry_after_ms=SOON_MS)
