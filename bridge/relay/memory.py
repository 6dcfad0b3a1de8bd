"""How many bytes may be held at once: by one socket, and by the whole process."""

from bridge.errors import OutOfMemoryBudget


class MemoryBudget:
    """A count of bytes with a bound. A socket's budget draws on the process's, its `parent`."""

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
        """Count `size` bytes in. Raises OutOfMemoryBudget, and counts nothing, when they do not fit.

        To `overdraw` is to go past this budget's limit, though never past its parent's.
        """
        if self.used + size > self._limit and not overdraw:
            raise OutOfMemoryBudget(f"{self._name} holds {self.used} bytes of at most {self._limit}; try again later")
        if self._parent is not None:
            self._parent.acquire(size)
        self.used += size

    def release(self, size: int) -> None:
        """Count `size` bytes out."""
        self.used -= size
        if self._parent is not None:
            self._parent.release(size)


class MemoryReservation:
    """What one event holds of a budget; given back at the event's end at the latest."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def add(self, size: int, *, overdraw: bool = False) -> None:
        """Raises OutOfMemoryBudget."""
        self._budget.acquire(size, overdraw=overdraw)
        self._size += size

    @property
    def size(self) -> int:
        return self._size

    def move(self, size: int, other: "MemoryReservation") -> None:
        """Let `other`, which is of the same budget, hold so much of it."""
        self._size -= size
        other._size += size

    def release(self, size: int) -> None:
        """Give part of it back."""
        self._budget.release(size)
        self._size -= size

    def release_all(self) -> None:
        """Give all of it back."""
        self.release(self._size)
