"""Work for a thread, handed over in batches: waking the thread, and the loop again, costs more than a read."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

MAX_BATCH: Final = 64
"""Who is in a batch waits for all of it."""

T = TypeVar("T")
Job = tuple[Callable[[], object], asyncio.Future[Any]]
Done = tuple[asyncio.Future[Any], object, Exception | None]


class WorkThread:
    """Does one thing after the other, in their order. What one turn of the loop asks for, and what is asked for while
    it works, goes over together."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[Job] = []
        self._is_busy = False

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """What `work` returns or raises, in the thread. Cancelled, it may be done all the same."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._hand_over)
        return future

    def end(self) -> None:
        """What was not begun is not done any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hand_over(self) -> None:
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._thread.submit(self._work, batch)

    def _finish(self, done: Sequence[Done]) -> None:
        if self._waiting:
            self._hand_over()
        else:
            self._is_busy = False
        for future, result, error in done:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _work(self, batch: Sequence[Job]) -> None:
        """In the thread."""
        done = [_outcome(work, future) for work, future in batch]
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._finish, done)


def _outcome(work: Callable[[], object], future: asyncio.Future[Any]) -> Done:
    try:
        return future, work(), None
    except Exception as error:
        return future, None, error
