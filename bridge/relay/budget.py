"""How many bytes may be held at once: by one socket, and by the whole process."""

from bridge.errors import OutOfMemoryBudget


class Budget:
    """A count of bytes with a bound. A socket's budget draws on the process's, its `parent`."""

    __slots__ = ("_limit", "_name", "_parent", "used")

    def __init__(self, limit: int, name: str, parent: "Budget | None" = None) -> None:
        self._limit = limit
        self._name = name
        self._parent = parent
        self.used = 0

    @property
    def is_full(self) -> bool:
        return self.used >= self._limit

    def take(self, size: int, *, overdraw: bool = False) -> None:
        """Count `size` bytes in. Raises OutOfMemoryBudget, and counts nothing, when they do not fit.

        To `overdraw` is to go past this budget's limit, though never past its parent's.
        """
        if self.used + size > self._limit and not overdraw:
            raise OutOfMemoryBudget(f"{self._name} holds {self.used} bytes of at most {self._limit}; try again later")
        if self._parent is not None:
            self._parent.take(size)
        self.used += size

    def give(self, size: int) -> None:
        """Count `size` bytes out."""
        self.used -= size
        if self._parent is not None:
            self._parent.give(size)


class Hold:
    """What one event holds of a budget; given back at the event's end at the latest."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0

    def add(self, size: int, *, overdraw: bool = False) -> None:
        """Raises OutOfMemoryBudget."""
        self._budget.take(size, overdraw=overdraw)
        self._size += size

    @property
    def size(self) -> int:
        return self._size

    def move(self, size: int, other: "Hold") -> None:
        """Let `other`, which is of the same budget, hold so much of it."""
        self._size -= size
        other._size += size

    def give(self, size: int) -> None:
        """Give part of it back."""
        self._budget.give(size)
        self._size -= size

    def drop(self) -> None:
        """Give all of it back."""
        self.give(self._size)
