"""The one way to start a task: it has a name, somebody holds it, and its failure is told."""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger("bridge.tasks")


class Tasks:
    """The tasks that one owner started and has to end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Returns it for whoever has a reason to end it before the others."""
        task = asyncio.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def cancel_all(self) -> None:
        """Cancel what still runs, and wait for it. Every task has begun by then, and so can give back what it owns."""
        await asyncio.sleep(0)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def wait_all(self) -> None:
        """Wait for what runs, however it ends."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
