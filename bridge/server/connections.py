"""The registry of open connections: its capacity, and the graceful drain."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bridge.errors import Draining, OutOfMemoryBudget


class Drainable(Protocol):
    """A session on a WebSocket, or one HTTP request."""

    def drain(self) -> None:
        """Accept no new events, and close as soon as none is in flight. May be called more than once."""

    def end_events(self) -> None:
        """Cancel the events in flight: the deadline of the drain has passed."""

    def revalidate(self) -> None:
        """Close at once if the new configuration no longer authorizes this connection."""


class ConnectionRegistry:
    """All connections of a process. Each connection is registered with `track` while it is served."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._connections: set[Drainable] = set()
        self._removed = asyncio.Event()
        self.is_draining = False

    def __iter__(self) -> Iterator[Drainable]:
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def at_capacity(self) -> bool:
        return len(self._connections) >= self.max_connections

    def check_capacity(self) -> None:
        """Raise Draining during a drain, and OutOfMemoryBudget if `max_sockets` connections are open."""
        if self.is_draining:
            raise Draining("the bridge is shutting down; connect again")
        if self.at_capacity:
            raise OutOfMemoryBudget(f"{self.max_connections} sockets are open, the maximum; try again later")

    @contextmanager
    def track(self, connection: Drainable) -> Iterator[None]:
        """Register `connection` while the block runs. A connection that is added during a drain is drained at once."""
        self._connections.add(connection)
        try:
            if self.is_draining:
                connection.drain()
            yield
        finally:
            self._connections.discard(connection)
            self._removed.set()

    def revalidate(self) -> None:
        for connection in self:
            connection.revalidate()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new connections, and return when all are closed. Events still running after `timeout_s` are ended."""
        self.is_draining = True
        for connection in self:
            connection.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_empty()
        except TimeoutError:
            for connection in self:
                connection.end_events()
            await self._wait_empty()

    async def _wait_empty(self) -> None:
        while self._connections:
            self._removed.clear()
            await self._removed.wait()
