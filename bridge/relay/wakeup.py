"""Wake the one task that waits for something."""

import asyncio


class Wakeup:
    """A flag that one task waits for; `wait` clears it. Cheaper than asyncio.Event, because it knows no other task."""

    __slots__ = ("_future", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._future: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until `set` was called since the last wait."""
        if not self._is_set:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._is_set = False
