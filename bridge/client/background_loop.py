"""Runs an event loop in a background thread, for callers without a loop and for callers that block theirs.

`anyio.from_thread.BlockingPortal` is not a substitute: it does not recognise the child of a fork, in which its
thread does not run, so every call would wait forever.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from bridge.client.connection import CLOSED_BY_CLIENT
from bridge.client.errors import ConnectionLost
from bridge.client.forks import FORKED, forks

T = TypeVar("T")


_RUNNING: Final[set["BlockingPortal"]] = set()
"""Running portals. The child of a fork keeps those of its parent: collecting them would close shared sockets."""


class BlockingPortal:
    """Runs coroutines for any thread. It owns its thread until `close` and is unusable in the child of a fork."""

    def __init__(self) -> None:
        began: Future[asyncio.AbstractEventLoop] = Future()
        self._forks = forks()
        self._stopped = asyncio.Event()
        self._is_closed = False
        self._closing = threading.RLock()  # reentrant: a collection while it is held may close a portal
        self._thread = threading.Thread(target=self._run, args=(began,), name="bridge client", daemon=True)
        self._thread.start()
        self._loop = began.result()

    @property
    def _belongs_to_parent(self) -> bool:
        """Return true in the child of a fork: the thread does not run here, and the lock may be held forever."""
        return self._forks != forks()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and return its result. An exception that ends the wait, such as Ctrl-C, cancels it.

        Raises ConnectionLost if the portal is closed or belongs to the parent process.
        """
        if self._belongs_to_parent:
            coroutine.close()
            raise ConnectionLost(FORKED)
        with self._closing:
            if self._is_closed:
                coroutine.close()
                raise ConnectionLost(CLOSED_BY_CLIENT)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # no effect if it is done

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Schedule the callback without waiting. A closed portal ignores it."""
        if self._belongs_to_parent:
            return
        with self._closing:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancel running coroutines and wait for the thread to end. It is idempotent."""
        if self._belongs_to_parent:
            return
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, began: "Future[asyncio.AbstractEventLoop]") -> None:
        _RUNNING.add(self)
        try:
            asyncio.run(self._run_until_stopped(began))
        finally:
            _RUNNING.discard(self)

    async def _run_until_stopped(self, began: "Future[asyncio.AbstractEventLoop]") -> None:
        began.set_result(asyncio.get_running_loop())
        await self._stopped.wait()
