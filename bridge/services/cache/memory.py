"""A cache store in the memory of the process. It evicts the least recently used answer first."""

from collections import OrderedDict

from bridge.services.cache.stored import StoredAnswer


class MemoryStore:
    """Holds answers of at most `max_bytes` in total, by an estimate of the memory that they take."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[bytes, StoredAnswer] = OrderedDict()
        self.stored_bytes = 0
        self.evictions = 0

    def get(self, key: bytes) -> StoredAnswer | None:
        """Return the answer, which may have expired, and mark it as used."""
        stored = self._answers.get(key)
        if stored is not None:
            self._answers.move_to_end(key)
        return stored

    def put(self, key: bytes, stored: StoredAnswer) -> None:
        """Replace the answer under this key. An answer larger than the whole store is not kept."""
        self.drop(key)
        size = stored.size_bytes
        if size > self._max_bytes:
            return
        self._answers[key] = stored
        self.stored_bytes += size
        while self.stored_bytes > self._max_bytes:
            self.stored_bytes -= self._answers.popitem(last=False)[1].size_bytes
            self.evictions += 1

    def drop(self, key: bytes) -> None:
        if (old := self._answers.pop(key, None)) is not None:
            self.stored_bytes -= old.size_bytes

    def __len__(self) -> int:
        return len(self._answers)
