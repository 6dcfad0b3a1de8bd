"""A bounded queue that one thread empties in batches, for writers whose callers must never block."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundWriter(Generic[T]):
    """Passes queued items in order to `write`, in its own daemon thread.

    The queue is a SimpleQueue and not a deque under a lock: a finaliser may log while this thread is inside `put`, and
    only a SimpleQueue is reentrant.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        on_end: Callable[[], None],
        *,
        bound: int,
        batch: int,
        linger_s: float,
        idle_s: float | None = None,
    ) -> None:
        """At most `bound` items wait. An item waits at most `linger_s` for others to be written with.

        `write` must not raise. It gets at most `batch` items, and none after `idle_s` without an item. `on_end` is
        called in the thread after the last write.
        """
        self._write = write
        self._on_end = on_end
        self._bound = bound
        self._batch = batch
        self._linger_s = linger_s
        self._idle_s = idle_s
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._flush = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return the number of items that no batch has taken yet."""
        return self._queue.qsize()

    @property
    def is_closed(self) -> bool:
        return self._closing.is_set()

    def put(self, item: T) -> bool:
        """Queue the item. Return False and drop it if the queue is full or closed."""
        if self.waiting >= self._bound or self.is_closed:
            return False
        self._queue.put(item)
        return True

    def put_latest(self, item: T) -> bool:
        """Queue the item; if the queue is full, drop the oldest one instead and return False."""
        has_room = self.waiting < self._bound or not self._drop_oldest()
        self._queue.put(item)
        return has_room

    def flush(self) -> None:
        """Write the waiting items now. Unlike `put`, it may not be called by a finaliser."""
        self._flush.set()

    def close(self, timeout_s: float) -> bool:
        """Write the waiting items. Return False if the thread has not ended within `timeout_s`."""
        self._closing.set()
        self._flush.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _drop_oldest(self) -> bool:
        try:
            self._queue.get_nowait()
        except queue.Empty:  # the thread has taken it meanwhile
            return False
        return True

    def _run(self) -> None:
        while not (self.is_closed and self._queue.empty()):
            self._write(self._next_batch())
        self._on_end()

    def _next_batch(self) -> list[T]:
        try:
            first = self._queue.get(timeout=self._idle_s)
        except queue.Empty:
            return []
        if self.waiting < self._batch and not self.is_closed:
            self._flush.wait(self._linger_s)
            self._flush.clear()
        return [item for item in (first, *self._queued()) if item is not None]

    def _queued(self) -> Iterator[T | None]:
        for _ in range(self._batch - 1):
            try:
                yield self._queue.get_nowait()
            except queue.Empty:
                return
