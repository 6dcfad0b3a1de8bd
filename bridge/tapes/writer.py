"""Runs the thread that redacts and writes recordings, so that neither blocks the event loop."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from bridge.tapes.folder import TapeFolder

log = logging.getLogger("bridge.recording")

MAX_TAPE_BYTES: Final = 64 << 20
MAX_HELD_BYTES: Final = 256 << 20
"""Memory of all exchanges in recording or in the queue. An exchange that exceeds a limit is not recorded."""

BACKLOG_WARNING: Final = 500
"""Number of waiting exchanges from which the log warns."""
WARN_AFTER_S: Final = 1.0
"""Time after which `aclose` logs the number of waiting exchanges."""


class RecordingThread:
    """Runs jobs in one thread, in order. Its methods are called on the event loop."""

    def __init__(self, folder: TapeFolder, max_tape_bytes: int, max_held_bytes: int) -> None:
        self.folder = folder
        self._max_tape_bytes, self._max_held_bytes = max_tape_bytes, max_held_bytes
        self.held_bytes = 0
        """Bytes that wait for the thread, now or later."""
        self.unwritten = 0
        """Number of ended exchanges and sessions with incomplete tapes, which a crash would cut."""
        self._is_behind = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tapes")
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def hold(self, size: int, of_take: int) -> str | None:
        """Add `size` bytes of a recording that holds `of_take` in total. Return the reason if that exceeds a limit."""
        self.held_bytes += size
        if of_take > self._max_tape_bytes:
            return f"it is longer than {self._max_tape_bytes} bytes"
        if self.held_bytes > self._max_held_bytes:
            return "too many others wait to be written"
        return None

    def submit(self, job: Callable[[], None], frees: int = 0, then: Callable[[], None] | None = None) -> None:
        """Run the job, subtract `frees` bytes and call `then`. After `aclose` it does nothing."""
        if self._is_closed:
            return
        waiting = asyncio.get_running_loop().run_in_executor(self._thread, job)
        self._waiting.add(waiting)
        waiting.add_done_callback(partial(self._done, frees, then))

    def submit_last(self, job: Callable[[], None], frees: int, then: Callable[[], None] | None = None) -> None:
        """Submit the job that completes a tape."""
        if self._is_closed:
            return
        self.unwritten += 1
        if self.unwritten >= BACKLOG_WARNING and not self._is_behind:
            self._is_behind = True
            log.warning("%s exchanges wait to be written; a crash would lose their tapes", self.unwritten)
        self.submit(job, frees, partial(self._tape_written, then))

    async def aclose(self) -> None:
        """Wait until everything is written, then stop the thread."""
        timeout_s: float | None = WARN_AFTER_S
        while self._waiting:
            _, late = await asyncio.wait(self._waiting, timeout=timeout_s)
            if late and timeout_s is not None:
                timeout_s = None
                log.warning("%s exchanges wait to be written before the bridge ends", self.unwritten)
        self._is_closed = True
        self._thread.shutdown()

    def _tape_written(self, then: Callable[[], None] | None) -> None:
        self.unwritten -= 1
        if self._is_behind and self.unwritten < BACKLOG_WARNING // 2:
            self._is_behind = False
            log.warning("the backlog of tapes has been written")
        if then is not None:
            then()

    def _done(self, frees: int, then: Callable[[], None] | None, waited: "asyncio.Future[None]") -> None:
        self._waiting.discard(waited)
        self.held_bytes -= frees
        if error := waited.exception():
            # Not its text, which may contain secrets that were not redacted yet.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("a tape could not be written: %s", reason)
        if then is not None:
            then()
