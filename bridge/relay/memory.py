"""Limit the bytes that one socket and the process hold at the same time."""

from bridge.errors import OutOfMemoryBudget


class MemoryBudget:
    """A bounded count of bytes. A socket's budget also counts in that of the process, its `parent`."""

    __slots__ = ("_limit", "_name", "_parent", "used")

    def __init__(self, limit: int, name: str, parent: "MemoryBudget | None" = None) -> None:
        self._limit = limit
        self._name = name
        self._parent = parent
        self.used = 0

    @property
    def is_full(self) -> bool:
        return self.used >= self._limit

    def acquire(self, size: int, *, overdraw: bool = False) -> None:
        """Add `size` bytes. Raises OutOfMemoryBudget, and counts nothing, if they do not fit.

        With `overdraw` this budget's limit may be exceeded, but never its parent's.
        """
        if self.used + size > self._limit and not overdraw:
            raise OutOfMemoryBudget(f"{self._name} holds {self.used} bytes of at most {self._limit}; try again later")
        if self._parent is not None:
            self._parent.acquire(size)
        self.used += size

    def release(self, size: int) -> None:
        """Subtract `size` bytes."""
        self.used -= size
        if self._parent is not None:
            self._parent.release(size)


class MemoryReservation:
    """The part of a budget that one event holds. It is released at the event's end at the latest."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def add(self, size: int, *, overdraw: bool = False) -> None:
        """Reserve more bytes. Raises OutOfMemoryBudget."""
        self._budget.acquire(size, overdraw=overdraw)
        self._size += size

    @property
    def size(self) -> int:
        return self._size

    def move(self, size: int, other: "MemoryReservation") -> None:
        """Transfer `size` bytes to `other`, a reservation of the same budget."""
        self._size -= size
        other._size += size

    def release(self, size: int) -> None:
        """Release a part of the reservation."""
        self._budget.release(size)
        self._size -= size

    def release_all(self) -> None:
        """Release the whole reservation."""
        self.release(self._size)
