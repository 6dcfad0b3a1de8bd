"""A wall clock that tests advance; event loops have their own clock (`tests.support.clock`)."""

import time

import pytest

NOON_S = 1_767_268_800.0
"""Noon UTC on January 1: every window whose length divides twelve hours begins here."""


class Wall:
    """A fake of `time.time()`."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall(NOON_S)
    monkeypatch.setattr(time, "time", lambda: clock.now_s)
    return clock
