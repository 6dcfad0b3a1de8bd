"""An event loop in a thread of its own: for callers that have none, and for those whose loop is busy waiting."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from bridge.client.connection import LEFT
from bridge.client.errors import ConnectionLost
from bridge.client.forks import FORKED, forks

T = TypeVar("T")


_RUNNING: Final[set["BlockingPortal"]] = set()
"""Those whose thread runs. In the child of a fork the parent's stay here: what they hold must never be collected."""


class BlockingPortal:
    """Any thread may call. Owns the thread until `close`. In the child of a fork it is of no use."""

    def __init__(self) -> None:
        began: Future[asyncio.AbstractEventLoop] = Future()
        self._forks = forks()
        self._stopped = asyncio.Event()
        self._is_closed = False
        self._closing = threading.RLock()  # reentrant: garbage may be collected while it is held, and close a portal
        self._thread = threading.Thread(target=self._run, args=(began,), name="bridge client", daemon=True)
        self._thread.start()
        self._loop = began.result()

    @property
    def _is_of_parent(self) -> bool:
        """Its thread does not run here, and its lock may be held for ever."""
        return self._forks != forks()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Waits for its result. What ends the wait early, such as Ctrl-C, cancels it.

        Raises ConnectionLost when it is closed, or the parent's.
        """
        if self._is_of_parent:
            coroutine.close()
            raise ConnectionLost(FORKED)
        with self._closing:
            if self._is_closed:
                coroutine.close()
                raise ConnectionLost(LEFT)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # nothing happens to one that is done

    def tell(self, callback: Callable[[], None]) -> None:
        """Waits for nothing; nothing happens once it is closed."""
        if self._is_of_parent:
            return
        with self._closing:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancels what still runs, and waits for the thread to end. May be called again."""
        if self._is_of_parent:
            return
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, began: "Future[asyncio.AbstractEventLoop]") -> None:
        _RUNNING.add(self)
        try:
            asyncio.run(self._live(began))
        finally:
            _RUNNING.discard(self)

    async def _live(self, began: "Future[asyncio.AbstractEventLoop]") -> None:
        began.set_result(asyncio.get_running_loop())
        await self._stopped.wait()
