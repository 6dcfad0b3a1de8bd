"""Track progress of a connection by a counter that grows, such as the bytes that a client has read. Pure."""

from typing import Final

CHECKS_PER_TIMEOUT: Final = 12
"""Progress is checked so often within a timeout: no timeout is exceeded by more than one such interval."""


class Progress:
    """Records when a counter last grew. Instants are in seconds of the caller's clock."""

    def __init__(self, now: float, count: int = 0) -> None:
        self.grew_at = now
        self._count = count

    def update(self, now: float, count: int) -> bool:
        """Record the counter's current value; return True if it has grown."""
        has_grown = count > self._count
        if has_grown:
            self.grew_at, self._count = now, count
        return has_grown
