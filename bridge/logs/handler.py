"""The logging handler that never blocks its caller: lines wait in a bounded queue and one thread writes them."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from io import FileIO, UnsupportedOperation
from typing import Final, Protocol, TextIO

CAPACITY: Final = 10_000
LINGER_S: Final = 0.05
"""How long a line may wait for others to be written with."""
CLOSING_S: Final = 1.0
"""How long the end of the process waits for lines that are not written yet."""

_LINES_PER_WRITE: Final = 1000

Renderer = Callable[[logging.LogRecord], bytes]


class LineHandler(logging.Handler):
    """Renders in the caller's thread and writes in its own, at most `linger_s` later.

    At most `capacity` lines wait; then the oldest give way, and how many did is logged once lines go out again.
    """

    def __init__(
        self,
        stream: TextIO,
        render: Renderer,
        *,
        capacity: int = CAPACITY,
        linger_s: float = LINGER_S,
        closing_s: float = CLOSING_S,
    ) -> None:
        super().__init__()
        self._render = render
        self._capacity = capacity
        self._linger_s = linger_s
        self._closing_s = closing_s
        self._sink = _sink_for(stream)
        # Not a deque under a lock: a finaliser that logs may run inside any of our own calls, and put() is safe there.
        self._waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lost = 0
        self._lost_told = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._closing.is_set():
            return
        try:
            line = self._render(record)
        except Exception as error:  # a wrong log call must not end the event that made it
            line = self._render(_record(logging.ERROR, "a log call failed", {"call": repr(record.msg)}, error))
        if self._waiting.qsize() >= self._capacity:
            self._drop_oldest()
        self._waiting.put(line)

    def close(self) -> None:
        """Write what waits, for at most `closing_s`; later calls to the log are lost."""
        self._closing.set()
        self._waiting.put(b"")
        self._thread.join(self._closing_s)
        super().close()

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:  # the writer was quicker
            return
        self._lost += 1

    def _run(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            lines = [self._waiting.get()]
            self._closing.wait(self._linger_s)
            lines += self._more()
            self._sink.write(self._notice() + b"".join(lines))
        self._sink.close()

    def _more(self) -> Iterator[bytes]:
        for _ in range(_LINES_PER_WRITE):
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _notice(self) -> bytes:
        lost = self._lost - self._lost_told
        if not lost:
            return b""
        self._lost_told += lost
        return self._render(_record(logging.WARNING, "log lines were lost: their reader is too slow", {"lost": lost}))


def _record(
    level: int, message: str, fields: Mapping[str, object], error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord(__name__, level, __file__, 0, message, None, exc_info)
    record.__dict__["fields"] = fields
    return record


class _Sink(Protocol):
    def write(self, data: bytes) -> None:
        """Write all of it, however long that takes. Never raises: if the reader is gone, nobody is left to tell."""

    def close(self) -> None: ...


def _sink_for(stream: TextIO) -> _Sink:
    try:
        return _Descriptor(stream.fileno())
    except UnsupportedOperation:
        return _Stream(stream)


class _Descriptor:
    """A descriptor of our own. Python's stream keeps its lock while a write hangs, and the interpreter aborts at exit
    when it finds that lock taken."""

    def __init__(self, shared: int) -> None:
        self._file = FileIO(os.dup(shared), "w")

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError:
            return

    def _write_some(self, data: memoryview) -> int:
        written = self._file.write(data)
        if written is None:  # full, and somebody who shares the descriptor made it non-blocking
            time.sleep(LINGER_S)
        return written or 0

    def close(self) -> None:
        self._file.close()


class _Stream:
    """A stream without a descriptor, such as one in memory. It stays its owner's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Nothing to let go of."""
