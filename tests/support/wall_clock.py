"""A wall clock that stands still until a test advances it; loops have a clock of their own (`tests.support.clock`)."""

import time

import pytest

NOON_S = 1_767_268_800.0
"""Of a first of January, UTC: every window that divides twelve hours begins."""


class Wall:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall(NOON_S)
    monkeypatch.setattr(time, "time", lambda: clock.now_s)
    return clock
