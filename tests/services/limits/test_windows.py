"""Alignment of time windows, and the wait until a full one has room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.limits import Technique
from bridge.services.limits.windows import number_of, wait_ms, weight_of


def test_fixed_windows_are_aligned_to_the_clock():
    assert number_of(7199.999, 3600) == 1
    assert number_of(7200.0, 3600) == 2


def test_the_weight_of_the_previous_window_is_its_overlap():
    assert weight_of("sliding", 0.0, 60) == 1.0
    assert weight_of("sliding", 15.0, 60) == 0.75
    assert weight_of("fixed", 15.0, 60) == 0.0


WAITS: dict[str, tuple[Technique, float, float, float, float, int | None]] = {
    # technique, limit, seconds left of the 60, what the window before held, what this one holds, milliseconds
    "a fixed window ends": ("fixed", 5, 12.5, 99, 5, 12_501),
    "the window before leaves reach": ("sliding", 10, 60, 10, 0, 1),
    "and more of it, for there is more in this one": ("sliding", 10, 60, 10, 4, 24_001),
    "some of it has left already": ("sliding", 10, 42, 10, 4, 6_001),
    "this one is full, and leaves reach when the next has begun": ("sliding", 10, 30, 0, 10, 30_001),
    "it is more than full": ("sliding", 10, 30, 0, 20, 60_001),
    "it is not full": ("sliding", 10, 30, 0, 3, 1),
    "a limit of nothing is for ever": ("sliding", 0, 30, 0, 0, None),
}


@pytest.mark.parametrize(("technique", "limit", "left_s", "before", "current", "wait"), WAITS.values(), ids=WAITS)
def test_a_full_window_has_room_after_the_wait(
    technique: Technique, limit: float, left_s: float, before: float, current: float, wait: int | None
):
    assert wait_ms(technique, limit, 60, left_s, before, current) == wait


@given(st.integers(1, 50), st.integers(1, 3600), st.floats(0, 0.999), st.integers(0, 60), st.integers(0, 60))
def test_after_the_wait_there_is_room_and_before_it_there_was_none(limit, window_s, part, before, current):
    """As long as nothing more is added."""
    now_s = 1000 * window_s + part * window_s
    wait = wait_ms("sliding", limit, window_s, window_s - now_s % window_s, before, current)
    assert wait is not None

    def held(at_s: float) -> float:
        passed = number_of(at_s, window_s) - 1000
        windows = [before, current, 0, 0, 0]
        return windows[passed] * weight_of("sliding", at_s % window_s, window_s) + windows[passed + 1]

    assert held(now_s + wait / 1000 + 0.001) < limit
    if held(now_s) >= limit and wait > 10:
        assert held(now_s + (wait - 10) / 1000) >= limit - 1e-6
