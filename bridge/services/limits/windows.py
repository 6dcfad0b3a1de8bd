"""Fixed and sliding time windows: the window of an instant, and the wait until a full one has room. Pure.

Fixed windows are aligned to the clock: windows of an hour begin on the hour, UTC. A sliding window is computed from two
fixed ones: the current one in full, and the previous one weighted by its overlap with the last window's length, as if
its content were spread evenly. Cloudflare was observed to count spending this way, and so does the package
`limits` (its documentation, "sliding window counter"), which counts in Redis. Instants are seconds since 1970; a window
is full when it holds its limit.
"""

import math
from typing import Final, Generic, TypeAlias, TypeVar

from bridge.config.limits import Technique

T = TypeVar("T")

MAX_WINDOWS: Final = 65_536
"""Windows kept. The least recently used is evicted, because clients can create any number of budgets."""

WindowKey: TypeAlias = tuple[str, int]
"""The key of what is counted, and the number of a window."""


class WindowTable(Generic[T]):
    """Totals by window. Above `max_windows`, the least recently updated window is evicted.

    A key contains its window's number, so an expired window is never read again; it needs no timer.
    """

    def __init__(self, zero: T, max_windows: int = MAX_WINDOWS) -> None:
        self._zero = zero
        self._max_windows = max_windows
        self._totals: dict[WindowKey, T] = {}

    def __len__(self) -> int:
        return len(self._totals)

    def get(self, key: WindowKey) -> T:
        return self._totals.get(key, self._zero)

    def put(self, key: WindowKey, totals: T) -> None:
        """Store the totals of a window. Totals of zero are not stored and evict nothing."""
        self._totals.pop(key, None)
        if totals != self._zero:
            self._totals[key] = totals
        if len(self._totals) > self._max_windows:
            del self._totals[next(iter(self._totals))]


def windows_at(key: str, window_s: int, now_s: float) -> tuple[WindowKey, WindowKey]:
    """Return the keys of the current and the previous window."""
    number = number_of(now_s, window_s)
    return (key, number), (key, number - 1)


def number_of(now_s: float, window_s: int) -> int:
    """Return the number of the window that contains `now_s`, counted from 1970."""
    return int(now_s // window_s)


def weight_of(technique: Technique, into_s: float, window_s: int) -> float:
    """Return the share of the previous window that still counts, `into_s` seconds into this one."""
    return 1 - into_s / window_s if technique == "sliding" else 0.0


def wait_ms(
    technique: Technique, limit: float, window_s: int, left_s: float, previous: float, current: float
) -> int | None:
    """Return the milliseconds until a full window has room if nothing more is added; None (never) if the limit is 0.

    `left_s` is the rest of the current window in seconds.
    """
    if not limit:
        return None
    return math.floor(_wait_s(technique, limit, window_s, left_s, previous, current) * 1000) + 1


def _wait_s(technique: Technique, limit: float, window_s: int, left_s: float, previous: float, current: float) -> float:
    if technique == "fixed":
        return left_s
    if current < limit:
        return max(0.0, left_s - window_s * (limit - current) / previous) if previous else 0.0
    return left_s + window_s * (1 - limit / current)
