"""Request counts in memory: they pass what the package `limits` passes, and their number is bounded."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bridge.config.limits import RateLimit, Technique
from bridge.services.limits.local import LocalRates
from bridge.services.limits.windows import WindowTable
from tests.support.wall_clock import NOON_S, Wall


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(steps=st.lists(st.integers(0, 30), max_size=40), limit=st.integers(1, 8))
async def test_a_sliding_window_passes_what_the_package_limits_passes(wall: Wall, steps: list[float], limit: int):
    wall.now_s = NOON_S + 0.37  # at no instant is the share of the previous window a whole number
    item, rate = RateLimitItemPerSecond(limit, 60), RateLimit(limit, 60, "sliding")
    rates, reference = LocalRates(), SlidingWindowCounterRateLimiter(MemoryStorage())
    for seconds in steps:
        wall.advance(seconds)
        assert (await rates.wait_ms(rate, "us") is None) == reference.hit(item, "us")


@pytest.mark.parametrize("technique", ["fixed", "sliding"])
async def test_a_refused_call_does_not_count_and_a_raised_limit_continues_the_count(wall: Wall, technique: Technique):
    rates = LocalRates()
    assert await rates.wait_ms(RateLimit(2, 60, technique), "us") is None
    assert await rates.wait_ms(RateLimit(1, 60, technique), "us") is not None
    assert await rates.wait_ms(RateLimit(2, 60, technique), "us") is None
    assert await rates.wait_ms(RateLimit(2, 60, technique), "us") is not None


async def test_names_and_intervals_are_counted_separately(wall: Wall):
    rates, minute = LocalRates(), RateLimit(1, 60)
    assert [await rates.wait_ms(minute, name) is None for name in ("a", "b", "a")] == [True, True, False]
    assert await rates.wait_ms(RateLimit(1, 61), "a") is None


async def test_counting_starts_no_thread(wall: Wall):
    before = threading.active_count()
    await LocalRates().wait_ms(RateLimit(1, 60), "us")
    assert threading.active_count() == before


def test_above_the_maximum_the_least_recently_updated_window_is_evicted():
    counts = WindowTable(0, max_windows=3)
    for key in ("a", "b", "c", "a", "d"):
        counts.put((key, 1), counts.get((key, 1)) + 1)
    assert [counts.get((key, 1)) for key in "abcd"] == [2, 0, 1, 1]


async def test_rates_of_any_number_of_names_use_bounded_memory(wall: Wall):
    rates = LocalRates(max_windows=10)
    for number in range(100):
        await rates.wait_ms(RateLimit(1, 60), f"name {number}")
    assert len(rates._counts) == 10
