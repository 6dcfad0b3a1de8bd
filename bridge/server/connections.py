"""Who is being served: how many there may be, and how they are asked to leave."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bridge.errors import Draining, OutOfMemoryBudget


class Drainable(Protocol):
    """A socket with its events, or one HTTP request."""

    def drain(self) -> None:
        """No new events; leave as soon as there are none. May be called again."""

    def end_events(self) -> None:
        """The deadline of a drain has come."""

    def revalidate(self) -> None:
        """The configuration is another one: leave at once, if it does not let you stay."""


class ConnectionRegistry:
    """All of a process. Whoever serves one says so with `present`, for as long as it takes."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._connections: set[Drainable] = set()
        self._one_left = asyncio.Event()
        self.is_draining = False

    def __iter__(self) -> Iterator[Drainable]:
        return iter(list(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def at_capacity(self) -> bool:
        return len(self._connections) >= self.max_connections

    def check_capacity(self) -> None:
        """Raises Draining, and OutOfMemoryBudget for one too many."""
        if self.is_draining:
            raise Draining("the bridge is shutting down; connect again")
        if self.at_capacity:
            raise OutOfMemoryBudget(f"{self.max_connections} sockets are open, and no more are taken")

    @contextmanager
    def track(self, connection: Drainable) -> Iterator[None]:
        """Who comes while others are asked to leave is asked too."""
        self._connections.add(connection)
        try:
            if self.is_draining:
                connection.drain()
            yield
        finally:
            self._connections.discard(connection)
            self._one_left.set()

    def revalidate(self) -> None:
        for connection in self:
            connection.revalidate()

    async def drain(self, timeout_s: float) -> None:
        """Admit nobody more, and return when all are gone: they leave when their events are over, or in so long."""
        self.is_draining = True
        for connection in self:
            connection.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_gone()
        except TimeoutError:
            for connection in self:
                connection.end_events()
            await self._all_gone()

    async def _all_gone(self) -> None:
        while self._connections:
            self._one_left.clear()
            await self._one_left.wait()
