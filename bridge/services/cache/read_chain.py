"""The reads of a provider's body that several readers take at their own speed."""

from typing import Final

from bridge.relay.memory import MemoryBudget
from bridge.services.cache.key import MAX_ANSWER_BYTES

LINK_OVERHEAD_BYTES: Final = 100
"""Estimated memory of a read beside its bytes."""


class ReadLink:
    """One read in a linked list. It is freed once the slowest reader has passed it, unless a `ReadChain` holds it."""

    __slots__ = ("data", "next")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.next: ReadLink | None = None


class ReadChain:
    """Holds the reads from the beginning, while they fit the size of a cacheable answer and the memory budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        """`budget` is shared with all other calls."""
        self._budget = budget
        self._last = ReadLink(b"")
        self._held_bytes = 0
        self.first: ReadLink | None = self._last
        """An empty link before the first read; None when the beginning is no longer held."""
        self.size_bytes = 0
        """Bytes of all reads, held or not."""

    def add(self, data: bytes) -> ReadLink:
        """Append a read and return its link."""
        size = len(data)
        link = self._last.next = ReadLink(data)
        self._last = link
        self.size_bytes += size
        if self.first is not None:
            if self._held_bytes > MAX_ANSWER_BYTES or self._budget.is_full:
                self.release()
            else:
                size += LINK_OVERHEAD_BYTES
                self._budget.acquire(size, overdraw=True)
                self._held_bytes += size
        return link

    def release(self) -> None:
        """Stop holding the beginning, and return its memory to the budget."""
        self.first = None
        self._budget.release(self._held_bytes)
        self._held_bytes = 0

    def reads_until(self, last: ReadLink) -> list[bytes]:
        """Return the reads from the beginning up to `last`. The beginning must still be held."""
        link, reads = self.first, []
        while link is not last:
            assert link is not None
            link = link.next
            assert link is not None
            reads.append(link.data)
        return reads
