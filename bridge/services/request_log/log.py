"""Observe events and queue them for the request log's thread, which converts and writes them.

JSON, redaction and SQLite are the work of that thread (`writer`), batch by batch. A slow disk never delays an event:
beyond a bound of waiting events, rows are dropped and counted.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.logs.background_writer import BackgroundWriter
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
"""Rows in one transaction. A full batch is written at once."""
LINGER_S: Final = 0.5
"""Maximal wait of an event for others to be written with. Including the write it takes less than a second."""
IDLE_S: Final = 60.0
"""Interval of the search for old rows while there are no events."""
CLOSING_S: Final = 10.0
"""Maximal time that the end of the process waits for unwritten rows."""

QueuedEvent = tuple[EventSummary, int]
"""An event and its estimated memory in bytes."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Limits of the events that wait for the thread."""

    rows: int = MAX_ROWS
    bytes: int = MAX_BYTES


@asynccontextmanager
async def open_request_log(
    path: Path, keep_days: int, bounds: QueueBounds | None = None
) -> AsyncIterator["RequestLog"]:
    """Open the request log, and write all waiting events at the end.

    Raises LogUnusable if the file can never be a request log.
    """
    request_log = RequestLog(await asyncio.to_thread(RequestLogWriter, path, keep_days), bounds or QueueBounds())
    try:
        yield request_log
    finally:
        await request_log.aclose()


class RequestLog:
    """Observes events. One thread writes their rows; the event loop only queues them."""

    def __init__(self, writer: RequestLogWriter, bounds: QueueBounds) -> None:
        """The thread owns `writer` from now on."""
        self._writer = writer
        self._bounds = bounds
        # Only one thread changes each number: what waits is the difference of what came in and what went out.
        self._bytes_in = self._bytes_out = self._rejected = 0
        self._refused_in = self._refused_out = 0
        """Events refused before a provider call. They have a share of their own, as they have in the file."""
        self._is_full = False
        self._queue: BackgroundWriter[QueuedEvent] = BackgroundWriter(
            "requests",
            self._write,
            writer.close,
            bound=bounds.rows,
            batch=BATCH_ROWS,
            linger_s=LINGER_S,
            idle_s=IDLE_S,
        )

    @property
    def dropped(self) -> int:
        """Return the number of events since the start of the process that should have a row and have none."""
        return self._rejected + self._writer.lost

    @property
    def waiting(self) -> int:
        """Return the number of events that wait for the thread."""
        return self._queue.waiting

    def samples(self) -> Iterable[Sample]:
        yield LOG_DROPPED.name, (), self.dropped
        yield LOG_WAITING.name, (), self.waiting
        yield LOG_FAULTS.name, (), self._writer.faults

    def on_event_end(self, summary: EventSummary) -> None:
        if not summary.settings.collect_log or self._queue.is_closed:
            return
        size = memory_bytes(summary)
        if not self._has_room(summary, size):
            self._reject()
            return
        self._bytes_in += size
        self._refused_in += summary.is_refused
        self._queue.put((summary, size))
        if self._queue.waiting == BATCH_ROWS + 1:
            self._queue.flush()

    async def aclose(self) -> None:
        """Write all waiting events; those that are not written within `CLOSING_S` are dropped, which is logged."""
        self._writer.closing.set()
        if not await asyncio.to_thread(self._queue.close, CLOSING_S):
            log.warning("request log not written in time; %s waiting events are lost", self.waiting)
        if self.dropped:
            log.warning("%s events have no row in the request log", self.dropped)

    def _has_room(self, summary: EventSummary, size: int) -> bool:
        if self.waiting >= self._bounds.rows or self._bytes_in - self._bytes_out + size > self._bounds.bytes:
            return False
        return not summary.is_refused or self._refused_in - self._refused_out < self._bounds.rows // REFUSED_PART

    def _reject(self) -> None:
        self._rejected += 1
        if not self._is_full:
            self._is_full = True
            if not self._writer.is_failing:  # otherwise the writer has logged the reason
                log.warning("request log is written too slowly; events get no row")

    def _write(self, batch: list[QueuedEvent]) -> None:
        """Write a batch, then prune until the next event waits. Runs in the thread."""
        if batch:
            self._writer.write([summary for summary, _ in batch], is_behind=self._queue.waiting >= BATCH_ROWS)
            self._bytes_out += sum(size for _, size in batch)
            self._refused_out += sum(summary.is_refused for summary, _ in batch)
            self._log_recovery()
        while self._writer.prune() and not self.waiting:
            pass

    def _log_recovery(self) -> None:
        if self._is_full and self.waiting < BATCH_ROWS:
            self._is_full = False
            log.warning("every event gets a row in the request log again", extra={"fields": {"dropped": self.dropped}})
