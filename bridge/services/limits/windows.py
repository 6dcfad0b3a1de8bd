"""Windows of time: which one an instant falls into, and when one that is full lets something pass again.

Fixed windows are the clock's: those of an hour begin on the hour, UTC. A sliding one is made of two of them: all of
this one, and of the one before as much as lies within the last window's length, as if what it holds were spread
evenly. So was Cloudflare's seen to count spending (PROVIDERS.md 3.5), and so does `limits` (its documentation,
"sliding window counter"). Instants are seconds since 1970; a window is full when it holds its limit.
"""

import math

from bridge.config.limits import Technique


def number_of(now_s: float, window_s: int) -> int:
    """The window's, counted from 1970."""
    return int(now_s // window_s)


def weight_of(technique: Technique, into_s: float, window_s: int) -> float:
    """How much of the window before still counts, so far into this one."""
    return 1 - into_s / window_s if technique == "sliding" else 0.0


def wait_ms(
    technique: Technique, limit: float, window_s: int, left_s: float, previous: float, current: float
) -> int | None:
    """How long a full window stays so, when nothing more is added; None is for ever, for a limit of nothing.

    `left_s` is what is left of the current window.
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
