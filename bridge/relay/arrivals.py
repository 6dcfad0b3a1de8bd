"""Long messages on their way in: which of them give way when memory runs out, and whose turn it is to be read."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from bridge.errors import OutOfMemoryBudget
from bridge.relay.memory import MemoryReservation

LONG_BYTES: Final = 1 << 20
"""A message that is longer counts while it is on its way in; up to here it may wait in aiohttp's buffers anyway."""


Refuse = Callable[[OutOfMemoryBudget], None]


class Arrivals:
    """Of one process. The message that began last is the first to be refused, so that the others come to their end."""

    def __init__(self) -> None:
        self._refusals: dict[Hashable, Refuse] = {}
        """By owner, in the order in which their messages began."""
        self.reading = asyncio.Lock()
        """One long message is taken apart at a time: meanwhile it needs a multiple of its size."""

    def begin(self, owner: Hashable, refuse: Refuse) -> None:
        """`refuse` gives back what the message holds. Does nothing for a message that has begun already."""
        self._refusals.setdefault(owner, refuse)

    def end(self, owner: Hashable) -> None:
        self._refusals.pop(owner, None)

    def add(self, owner: Hashable, reservation: MemoryReservation, size: int) -> None:
        """Count `size` more bytes of the message. If they do not fit, the newest messages are refused until they do.

        The owner's own message may be refused; then nothing is counted.
        """
        while owner in self._refusals:
            try:
                reservation.add(size, overdraw=True)
            except OutOfMemoryBudget as error:
                self._refusals.popitem()[1](error)
            else:
                return
