"""Account for long messages while they arrive, and refuse the newest of them when memory runs out."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from bridge.errors import OutOfMemoryBudget
from bridge.relay.memory import MemoryReservation

LONG_BYTES: Final = 1 << 20
"""Longer messages count while they arrive; shorter ones fit in aiohttp's buffers."""


Refuse = Callable[[OutOfMemoryBudget], None]


class Arrivals:
    """Long messages of one process. The newest message is refused first, so that older ones can be completed."""

    def __init__(self) -> None:
        self._refusals: dict[Hashable, Refuse] = {}
        """Callbacks by owner, in the order in which the messages began."""
        self.reading = asyncio.Lock()
        """Held while a long message is parsed: only one at a time, because parsing needs a multiple of its size."""

    def begin(self, owner: Hashable, refuse: Refuse) -> None:
        """Register a message. `refuse` releases its memory. Does nothing if the owner is registered already."""
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
