"""The reads of a body that several read, each at its own pace."""

from typing import Final

from bridge.policy.caching import MAX_ANSWER_BYTES
from bridge.relay.budget import Budget

LINK_BYTES: Final = 100
"""About what a read takes in memory beside its bytes."""


class Link:
    """One read, and the next. What is not held from its beginning is gone once the slowest reader has passed it."""

    __slots__ = ("data", "next")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.next: Link | None = None


class Reads:
    """Holds them from the beginning, as long as they are no longer than an answer that is kept, and there is room."""

    def __init__(self, room: Budget) -> None:
        """`room` is shared with others."""
        self._room = room
        self._last = Link(b"")
        self._held_bytes = 0
        self.first: Link | None = self._last
        """An empty one, before the first read; None when the beginning is not held any more."""

    def add(self, data: bytes) -> None:
        link = self._last.next = Link(data)
        self._last = link
        if self.first is None:
            return
        if self._room.is_full or self._held_bytes > MAX_ANSWER_BYTES:
            self.let_go()
            return
        size = len(data) + LINK_BYTES
        self._room.take(size, overdraw=True)
        self._held_bytes += size

    def let_go(self) -> None:
        """Of the beginning."""
        self.first = None
        self._room.give(self._held_bytes)
        self._held_bytes = 0

    def up_to(self, last: Link) -> list[bytes]:
        """From the beginning, which is still held."""
        link, reads = self.first, []
        while link is not last:
            assert link is not None
            link = link.next
            assert link is not None
            reads.append(link.data)
        return reads
