"""In-memory request counts for the rate-limit strategies of the package `limits`.

Its own memory storages look for expired keys all the time: in a thread that the first hit of each 10 ms starts and
waits for (300 µs), or in a task on each turn of the loop (75 µs with a thousand keys). Keys here contain their window's
number: an expired key is never read again, and is evicted once the bound is reached.
"""

import time
from math import floor
from typing import Final

from limits.storage.base import SlidingWindowCounterSupport, Storage, TimestampedSlidingWindow

MAX_COUNTS: Final = 65_536


class RateCounts(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counts by key, where each key belongs to one window. Above `max_counts`, the least recently used is evicted."""

    STORAGE_SCHEME = None

    def __init__(self, max_counts: int = MAX_COUNTS) -> None:
        super().__init__()
        self._max_counts = max_counts
        self._counts: dict[str, int] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count = self._counts[key] = self._counts.pop(key, 0) + amount
        if len(self._counts) > self._max_counts:
            del self._counts[next(iter(self._counts))]
        return count

    def get(self, key: str) -> int:
        return self._counts.get(key, 0)

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError("a key does not contain the length of its window")

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.time()
        previous, current = self.sliding_window_keys(key, expiry, now)
        weighted = self.get(previous) * (1 - now % expiry / expiry) + self.get(current)
        if floor(weighted) + amount > limit:
            return False
        self.incr(current, expiry, amount)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = time.time()
        previous, current = self.sliding_window_keys(key, expiry, now)
        left_s = expiry - now % expiry
        return self.get(previous), left_s, self.get(current), left_s + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        for window_key in self.sliding_window_keys(key, expiry, time.time()):
            self.clear(window_key)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)
