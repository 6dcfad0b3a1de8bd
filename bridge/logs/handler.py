"""The logging handler that never blocks its caller: lines wait in a bounded queue and one thread writes them."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from io import FileIO, UnsupportedOperation
from typing import Final, Protocol, TextIO

from bridge.logs.background_writer import BackgroundWriter

CAPACITY: Final = 10_000
LINGER_S: Final = 0.05
"""Maximal wait of a line for others to be written with."""
CLOSING_S: Final = 1.0
"""Maximal time that the end of the process waits for unwritten lines."""

_LINES_PER_WRITE: Final = 1000

Renderer = Callable[[logging.LogRecord], bytes]


class LineHandler(logging.Handler):
    """Renders a line in the caller's thread and writes it in its own thread, at most `linger_s` later.

    At most `capacity` lines wait. Beyond that the oldest are dropped, and their number is logged with the next write.
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
        self._closing_s = closing_s
        self._sink = _sink_for(stream)
        self._lost = self._reported_lost = 0
        self._writer = BackgroundWriter(
            "bridge-log", self._write, self._sink.close, bound=capacity, batch=_LINES_PER_WRITE, linger_s=linger_s
        )

    def emit(self, record: logging.LogRecord) -> None:
        if self._writer.is_closed:
            return
        try:
            line = self._render(record)
        except Exception as error:  # an invalid log call must not end the event that made it
            line = self._render(_record(logging.ERROR, "invalid log call", {"call": repr(record.msg)}, error))
        if not self._writer.put_latest(line):
            self._lost += 1

    def close(self) -> None:
        """Write the waiting lines, for at most `closing_s`; later log calls are dropped."""
        self._writer.close(self._closing_s)
        super().close()

    def _write(self, lines: list[bytes]) -> None:
        self._sink.write(self._notice() + b"".join(lines))

    def _notice(self) -> bytes:
        lost = self._lost - self._reported_lost
        if not lost:
            return b""
        self._reported_lost += lost
        return self._render(_record(logging.WARNING, "log lines dropped; their reader is too slow", {"lost": lost}))


def _record(
    level: int, message: str, fields: Mapping[str, object], error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord(__name__, level, __file__, 0, message, None, exc_info)
    record.__dict__["fields"] = fields
    return record


class _Sink(Protocol):
    def write(self, data: bytes) -> None:
        """Write all data, however long that takes. Never raises: without a reader there is nowhere to report it."""

    def close(self) -> None: ...


def _sink_for(stream: TextIO) -> _Sink:
    try:
        return _Descriptor(stream.fileno())
    except UnsupportedOperation:
        return _Stream(stream)


class _Descriptor:
    """A duplicated descriptor. A Python stream keeps its lock while a write hangs, and the interpreter aborts at exit
    if that lock is taken."""

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
        if written is None:  # full, and another process made the shared descriptor non-blocking
            time.sleep(LINGER_S)
        return written or 0

    def close(self) -> None:
        self._file.close()


class _Stream:
    """A stream without a descriptor, such as one in memory. Its owner closes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        try:
            self._stream.write(data.decode())
            self._stream.flush()
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Do nothing: the owner closes the stream."""
