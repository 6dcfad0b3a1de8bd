"""Wake objects when a later second begins, with one timer for all of them.

Most deadlines are cleared long before they are near, and arming and cancelling a timer for each event costs more than
all else that a deadline costs.
"""

import asyncio
import math
import threading
from typing import Final, Protocol

WOKEN_PER_TURN: Final = 1000
"""Objects that are woken before other callbacks run."""


class Sleeper(Protocol):
    """An object that is woken once."""

    def wake(self) -> None:
        """Continue. It must not raise, and may add itself for a later second."""


class SecondBuckets:
    """Objects by the second of the loop's clock in which they are woken. Empty buckets are dropped.

    At most one timer is armed. It may outlast the last object: then it does nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._buckets: dict[int, set[Sleeper]] = {}
        self._timer: asyncio.Handle | None = None
        self._armed_at = math.inf

    def __len__(self) -> int:
        """Return the number of objects that wait."""
        return sum(map(len, self._buckets.values()))

    def add(self, second: int, sleeper: Sleeper) -> None:
        """Wake the object when `second` begins, which must be in the future. It must not wait in another bucket."""
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = {sleeper}
            if second < self._armed_at:
                self._arm(second)
        else:
            bucket.add(sleeper)

    def remove(self, second: int, sleeper: Sleeper) -> None:
        """Remove an object that was added for `second` and was not woken yet."""
        bucket = self._buckets[second]
        bucket.remove(sleeper)
        if not bucket:
            del self._buckets[second]

    def _arm(self, second: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = second
        self._timer = self.loop.call_at(second, self._wake)

    def _wake(self) -> None:
        """Wake all whose second has begun, some in each turn of the loop, and arm the timer for the next second."""
        self._timer, self._armed_at = None, math.inf
        now = self.loop.time()
        quota = WOKEN_PER_TURN
        while self._buckets and quota and (second := min(self._buckets)) <= now:
            bucket = self._buckets[second]
            while bucket and quota:
                quota -= 1
                bucket.pop().wake()
            if not bucket:
                self._buckets.pop(second, None)  # the last object may have been removed by another one
        if self._buckets:
            self._arm(min(self._buckets))


class _PerThread(threading.local):
    buckets: SecondBuckets | None = None


_shared: Final = _PerThread()


def shared_buckets() -> SecondBuckets:
    """Return the buckets that all users of the running loop share."""
    loop = asyncio.get_running_loop()
    buckets = _shared.buckets
    if buckets is None or buckets.loop is not loop:
        buckets = _shared.buckets = SecondBuckets(loop)
    return buckets
