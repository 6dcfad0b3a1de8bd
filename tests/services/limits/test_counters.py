"""Counts of requests in memory: as `limits` itself counts, and bounded."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bridge.services.limits.counters import RateCounts
from tests.support.wall_clock import NOON_S, Wall


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(steps=st.lists(st.integers(0, 30), max_size=40), limit=st.integers(1, 8))
def test_a_sliding_window_passes_what_passes_through_that_of_limits(wall: Wall, steps: list[float], limit: int):
    wall.now_s = NOON_S + 0.37  # at no instant is a share of the window before a whole number
    item = RateLimitItemPerSecond(limit, 60)
    ours, theirs = SlidingWindowCounterRateLimiter(RateCounts()), SlidingWindowCounterRateLimiter(MemoryStorage())
    for seconds in steps:
        wall.advance(seconds)
        assert ours.hit(item, "us") == theirs.hit(item, "us")
        assert ours.get_window_stats(item, "us").remaining == theirs.get_window_stats(item, "us").remaining


def test_it_needs_neither_thread_nor_task():
    before = threading.active_count()
    counts = RateCounts()
    counts.incr("key", 60)
    assert threading.active_count() == before


def test_of_too_many_keys_the_one_counted_longest_ago_is_forgotten():
    counts = RateCounts(max_counts=3)
    for key in ("a", "b", "c", "a", "d"):
        counts.incr(key, 60)
    assert [counts.get(key) for key in "abcd"] == [2, 0, 1, 1]


def test_what_is_cleared_is_counted_anew(wall: Wall):
    counts = RateCounts()
    limiter, item = SlidingWindowCounterRateLimiter(counts), RateLimitItemPerSecond(1, 60)
    assert limiter.hit(item, "us")
    assert not limiter.hit(item, "us")
    limiter.clear(item, "us")
    assert limiter.hit(item, "us")
    assert counts.reset() == 1
    assert counts.check()


def test_a_key_of_one_window_knows_no_end():
    with pytest.raises(NotImplementedError):
        RateCounts().get_expiry("key")
