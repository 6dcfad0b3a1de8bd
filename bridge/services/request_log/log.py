"""Keeps the request log: an observer whose events wait in memory for one thread, which makes rows of them and writes.

JSON, redaction and SQLite are all that thread's work (`journal_writer`), batch by batch. Whatever the disk does, an
event does not feel it: past a bound of what may wait, rows are dropped and counted.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.relay.interfaces import Sample
from bridge.relay.summary import EventSummary
from bridge.services.metrics.definitions import LOG_DROPPED, LOG_FAULTS, LOG_WAITING
from bridge.services.request_log.rows import memory_bytes
from bridge.services.request_log.shares import REFUSED_PART
from bridge.services.request_log.writer import RequestLogWriter

log = logging.getLogger("bridge.requests")

MAX_ROWS: Final = 20_000
MAX_BYTES: Final = 128 << 20
BATCH_ROWS: Final = 256
"""In one transaction. So many need not wait for others."""
LINGER_S: Final = 0.5
"""How long an event may wait for others to be written with: with the writing, less than a second."""
IDLE_S: Final = 60.0
"""How often old rows are looked for while no event comes."""
CLOSING_S: Final = 10.0
"""How long the end waits for what is not written."""

Waiting = tuple[EventSummary, int]
"""With about how many bytes it holds."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Of the events that wait for the thread."""

    rows: int = MAX_ROWS
    bytes: int = MAX_BYTES


@asynccontextmanager
async def open_request_log(
    path: Path, keep_days: int, bounds: QueueBounds | None = None
) -> AsyncIterator["RequestLog"]:
    """Raises LogUnusable for a file that can be no log. At the end all that waits is written."""
    request_log = RequestLog(await asyncio.to_thread(RequestLogWriter, path, keep_days), bounds or QueueBounds())
    try:
        yield request_log
    finally:
        await request_log.aclose()


class RequestLog:
    def __init__(self, writer: RequestLogWriter, bounds: QueueBounds) -> None:
        """`writer` is the thread's from here on."""
        self._writer = writer
        self._bounds = bounds
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        # Each number is changed by one thread alone: what waits is what came in less what went out.
        self._bytes_in = self._bytes_out = self._refused = 0
        self._free_in = self._free_out = 0
        """Events that were refused before a provider was called: they have a share of their own, as in the file."""
        self._is_full = self._is_closed = False
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many events that were to have a row have none, since the process began."""
        return self._refused + self._writer.lost

    @property
    def waiting(self) -> int:
        return self._waiting.qsize()

    def samples(self) -> Iterable[Sample]:
        yield LOG_DROPPED.name, (), self.dropped
        yield LOG_WAITING.name, (), self.waiting
        yield LOG_FAULTS.name, (), self._writer.faults

    def on_event_end(self, summary: EventSummary) -> None:
        if not summary.settings.collect_log or self._is_closed:
            return
        waiting, size = self._waiting.qsize(), memory_bytes(summary)
        if waiting >= self._bounds.rows or self._bytes_in - self._bytes_out + size > self._bounds.bytes:
            self._refuse()
            return
        if summary.is_refused:
            if self._free_in - self._free_out >= self._bounds.rows // REFUSED_PART:
                self._refuse()
                return
            self._free_in += 1
        self._bytes_in += size
        self._waiting.put((summary, size))
        if waiting == BATCH_ROWS:
            self._hurry.set()

    async def aclose(self) -> None:
        """Write all that waits; what is not written within `CLOSING_S` is dropped, and said to be."""
        self._is_closed = True
        self._writer.closing.set()
        self._hurry.set()
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, CLOSING_S)
        if self._thread.is_alive():
            log.warning("the request log was not written in time: %s events wait", self.waiting)
        if self.dropped:
            log.warning("%s events have no row in the request log", self.dropped)

    def _refuse(self) -> None:
        self._refused += 1
        if not self._is_full:
            self._is_full = True
            if not self._writer.is_failing:  # which it has said itself
                log.warning("events have no row in the request log: it is written too slowly")

    # The thread's.

    def _run(self) -> None:
        while not (self._is_closed and self._waiting.empty()):
            if batch := self._batch():
                self._write(batch)
            while self._writer.prune() and self._waiting.empty():
                pass
        self._writer.close()

    def _batch(self) -> list[Waiting]:
        """What has come, and what comes within a moment. Empty when nothing came for long, or nothing will."""
        try:
            first = self._waiting.get(timeout=IDLE_S)
        except queue.Empty:
            return []
        if self._waiting.qsize() < BATCH_ROWS and not self._is_closed:
            self._hurry.wait(LINGER_S)
            self._hurry.clear()
        return [one for one in (first, *self._more()) if one is not None]

    def _more(self) -> Iterator[Waiting | None]:
        for _ in range(BATCH_ROWS - 1):
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _write(self, batch: list[Waiting]) -> None:
        self._writer.write([entry for entry, _ in batch])
        self._bytes_out += sum(size for _, size in batch)
        self._free_out += sum(entry.is_refused for entry, _ in batch)
        if self._is_full and self._waiting.qsize() < BATCH_ROWS:
            self._is_full = False
            log.warning("every event has its row in the request log again", extra={"fields": {"dropped": self.dropped}})
