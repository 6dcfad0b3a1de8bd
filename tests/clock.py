"""A loop whose clock tests can advance: deadlines of minutes pass at once, in the order in which they are due."""

import asyncio


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
