"""The one thread that writes what is recorded: it takes the secrets out, and waits for the disk, in nobody's way."""

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
"""Of all exchanges that are being recorded, or wait for the thread. One that goes past either bound is not recorded."""

MANY_UNWRITTEN: Final = 500
"""From so many exchanges on, the log says that they wait."""
SAID_AFTER_S: Final = 1.0
"""At the end the log says what waits, if it takes longer."""


class RecordingThread:
    """Where what is recorded is handed in. Called by the loop; what it is handed runs in the thread, in that order."""

    def __init__(self, folder: TapeFolder, max_tape_bytes: int, max_held_bytes: int) -> None:
        self.folder = folder
        self._max_tape_bytes, self._max_held_bytes = max_tape_bytes, max_held_bytes
        self.held_bytes = 0
        """What waits for the thread now, or will."""
        self.unwritten = 0
        """Exchanges and sessions that have ended, and whose tapes are not whole yet: a crash would cut them."""
        self._is_behind = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tapes")
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def hold(self, size: int, of_take: int) -> str | None:
        """Count `size` bytes in, of a take that holds `of_take` now. Says why that is too much, when it is."""
        self.held_bytes += size
        if of_take > self._max_tape_bytes:
            return f"it is longer than {self._max_tape_bytes} bytes"
        if self.held_bytes > self._max_held_bytes:
            return "too many others wait to be written"
        return None

    def submit(self, job: Callable[[], None], frees: int = 0, then: Callable[[], None] | None = None) -> None:
        """When the job is done, `frees` is counted out and `then` is called. After the end nothing is done any more."""
        if self._is_closed:
            return
        waiting = asyncio.get_running_loop().run_in_executor(self._thread, job)
        self._waiting.add(waiting)
        waiting.add_done_callback(partial(self._done, frees, then))

    def submit_last(self, job: Callable[[], None], frees: int, then: Callable[[], None] | None = None) -> None:
        """As `submit`, for the job that makes a tape whole."""
        if self._is_closed:
            return
        self.unwritten += 1
        if self.unwritten >= MANY_UNWRITTEN and not self._is_behind:
            self._is_behind = True
            log.warning("%s exchanges wait to be written; a crash would lose their tapes", self.unwritten)
        self.submit(job, frees, partial(self._is_whole, then))

    async def aclose(self) -> None:
        """Return when all is written."""
        timeout_s: float | None = SAID_AFTER_S
        while self._waiting:
            _, late = await asyncio.wait(self._waiting, timeout=timeout_s)
            if late and timeout_s is not None:
                timeout_s = None
                log.warning("%s exchanges wait to be written before the bridge ends", self.unwritten)
        self._is_closed = True
        self._thread.shutdown()

    def _is_whole(self, then: Callable[[], None] | None) -> None:
        self.unwritten -= 1
        if self._is_behind and self.unwritten < MANY_UNWRITTEN // 2:
            self._is_behind = False
            log.warning("tapes are written in time again")
        if then is not None:
            then()

    def _done(self, frees: int, then: Callable[[], None] | None, waited: "asyncio.Future[None]") -> None:
        self._waiting.discard(waited)
        self.held_bytes -= frees
        if error := waited.exception():
            # Not its text, which may hold what was on its way to be taken out.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("a tape could not be written: %s", reason)
        if then is not None:
            then()
