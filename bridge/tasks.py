"""Start asyncio tasks that have a name, an owner, and a log line on failure."""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger("bridge.tasks")


class Tasks:
    """The tasks of one owner, which must end them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task and return it, for a caller that cancels it before the others."""
        task = asyncio.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def cancel_all(self) -> None:
        """Cancel all running tasks and wait for them.

        Every task starts before it is cancelled, so that its `finally` blocks release what it owns.
        """
        await asyncio.sleep(0)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def wait_all(self) -> None:
        """Wait until all running tasks end, with or without an exception."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
