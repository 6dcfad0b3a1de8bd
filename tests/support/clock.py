"""Provide an event loop whose clock tests advance: timers fire at once, in the order of their times."""

import asyncio
from collections.abc import Callable
from typing import Final

MAX_ITERATIONS: Final = 200_000
"""Limit of iterations; they take one or two seconds in an idle loop."""


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop with real sockets and a clock that tests can advance."""

    def __init__(self) -> None:
        super().__init__()
        self._advanced_s = 0.0
        self._frozen_at: float | None = None

    def time(self) -> float:
        now = super().time() if self._frozen_at is None else self._frozen_at
        return now + self._advanced_s

    def freeze(self) -> None:
        """Stop the real clock, for tests without sockets: only `advance` moves the time."""
        if self._frozen_at is None:
            self._frozen_at = super().time()

    def is_idle(self) -> bool:
        """Return True if no callback is ready to run, besides the one that is running."""
        return not self._ready  # type: ignore[attr-defined]  # asyncio has no public access to its queue

    def advance(self, seconds: float) -> None:
        """Advance the clock; callbacks that become due run in the next iteration of the loop."""
        self._advanced_s += seconds


def freeze() -> None:
    """Freeze the clock of the running test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    loop.freeze()


def advance(seconds: float) -> None:
    """Advance the clock of the running test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    loop.advance(seconds)


async def run_until_idle() -> None:
    """Run the loop until no callback is ready; timers and data still in sockets do not count."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    for _ in range(MAX_ITERATIONS):
        await asyncio.sleep(0)
        if loop.is_idle():
            return
    raise AssertionError("the loop never became idle")


async def turns(count: int = 10) -> None:
    """Run `count` iterations of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail if it never does."""
    for _ in range(MAX_ITERATIONS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")
