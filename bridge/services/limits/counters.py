"""Counts of requests in this process's memory, for the strategies of `limits`.

Its own memory storages look at every key again and again to find those that have expired: from a thread that the
first hit of each 10 ms starts and waits for (300 µs), or from a task in each turn of the loop (75 µs with a thousand
keys). Here keys hold their window's number, so what has expired is never asked for again, and goes when there are too
many.
"""

import time
from math import floor
from typing import Final

from limits.storage.base import SlidingWindowCounterSupport, Storage, TimestampedSlidingWindow

MAX_COUNTS: Final = 65_536


class RateCounts(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Of keys that are of one window each. Of more than `most`, the one counted longest ago is forgotten."""

    STORAGE_SCHEME = None

    def __init__(self, most: int = MAX_COUNTS) -> None:
        super().__init__()
        self._most = most
        self._counts: dict[str, int] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count = self._counts[key] = self._counts.pop(key, 0) + amount
        if len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return count

    def get(self, key: str) -> int:
        return self._counts.get(key, 0)

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError("a key does not know its window's length")

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
        for each in self.sliding_window_keys(key, expiry, time.time()):
            self.clear(each)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)
