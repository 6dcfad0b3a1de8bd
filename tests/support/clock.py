"""A loop whose clock tests can advance: deadlines of minutes pass at once, in the order in which they are due."""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_TURNS: Final = 200_000
"""Of the loop; a second or two when there is nothing to do."""


class ClockLoop(asyncio.SelectorEventLoop):
    """Real sockets, and a clock that runs as usual until it is advanced."""

    def __init__(self) -> None:
        super().__init__()
        self._advanced_s = 0.0

    def time(self) -> float:
        return super().time() + self._advanced_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass; what became due runs in the loop's next turn."""
        self._advanced_s += seconds


def advance(seconds: float) -> None:
    """Let so much time pass for the running test."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    loop.advance(seconds)


async def turns(count: int = 10) -> None:
    """Let everything that can run without waiting run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], object]) -> None:
    """Wait for what others bring about in this loop; fails when it does not come about."""
    for _ in range(PATIENCE_TURNS):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")
