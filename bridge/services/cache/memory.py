"""The cache in the process's own memory: the answer that was asked for longest ago makes room first."""

from collections import OrderedDict

from bridge.services.cache.stored import Stored


class MemoryStore:
    """At most `most_bytes` of answers, by a close estimate of what they take."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[bytes, Stored] = OrderedDict()
        self.stored_bytes = 0
        self.evictions = 0

    def get(self, key: bytes) -> Stored | None:
        """What has expired may come too."""
        stored = self._answers.get(key)
        if stored is not None:
            self._answers.move_to_end(key)
        return stored

    def put(self, key: bytes, stored: Stored) -> None:
        """In place of what lies there. What is larger than the store is not kept."""
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
