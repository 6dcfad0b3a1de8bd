"""Who is being served: how many there may be, and how they are asked to leave."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bridge.errors import Draining, OutOfMemoryBudget


class Guest(Protocol):
    """A socket with its events, or one HTTP request."""

    def drain(self) -> None:
        """No new events; leave as soon as there are none. May be called again."""

    def end_events(self) -> None:
        """The deadline of a drain has come."""

    def recheck(self) -> None:
        """The configuration is another one: leave at once, if it does not let you stay."""


class Guests:
    """All of a process. Whoever serves one says so with `present`, for as long as it takes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._present: set[Guest] = set()
        self._one_left = asyncio.Event()
        self.is_draining = False

    def __iter__(self) -> Iterator[Guest]:
        return iter(list(self._present))

    def __len__(self) -> int:
        return len(self._present)

    @property
    def is_full(self) -> bool:
        return len(self._present) >= self.most

    def admit(self) -> None:
        """Raises Draining, and OutOfMemoryBudget for one too many."""
        if self.is_draining:
            raise Draining("the bridge is shutting down; connect again")
        if self.is_full:
            raise OutOfMemoryBudget(f"{self.most} sockets are open, and no more are taken")

    @contextmanager
    def present(self, guest: Guest) -> Iterator[None]:
        """Who comes while others are asked to leave is asked too."""
        self._present.add(guest)
        try:
            if self.is_draining:
                guest.drain()
            yield
        finally:
            self._present.discard(guest)
            self._one_left.set()

    def recheck(self) -> None:
        for guest in self:
            guest.recheck()

    async def send_away(self, patience_s: float) -> None:
        """Admit nobody more, and return when all are gone: they leave when their events are over, or in so long."""
        self.is_draining = True
        for guest in self:
            guest.drain()
        try:
            async with asyncio.timeout(patience_s):
                await self._all_gone()
        except TimeoutError:
            for guest in self:
                guest.end_events()
            await self._all_gone()

    async def _all_gone(self) -> None:
        while self._present:
            self._one_left.clear()
            await self._one_left.wait()
