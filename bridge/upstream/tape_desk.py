"""The one thread that writes what is recorded: it takes the secrets out, and waits for the disk, in nobody's way."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from bridge.upstream.tape_folder import TapeFolder

log = logging.getLogger("bridge.recording")

MAX_TAPE_BYTES: Final = 64 << 20
MAX_HELD_BYTES: Final = 256 << 20
"""Of all exchanges that are being recorded, or wait for the thread. One that goes past either bound is not recorded."""


class Desk:
    """Where what is recorded is handed in. Called by the loop; what it is handed runs in the thread, in that order."""

    def __init__(self, folder: TapeFolder, max_tape_bytes: int, max_held_bytes: int) -> None:
        self.folder = folder
        self._max_tape_bytes, self._max_held_bytes = max_tape_bytes, max_held_bytes
        self.held_bytes = 0
        """What waits for the thread now, or will."""
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

    async def aclose(self) -> None:
        while self._waiting:
            await asyncio.wait(self._waiting)
        self._is_closed = True
        self._thread.shutdown()

    def _done(self, frees: int, then: Callable[[], None] | None, waited: "asyncio.Future[None]") -> None:
        self._waiting.discard(waited)
        self.held_bytes -= frees
        if error := waited.exception():
            # Not its text, which may hold what was on its way to be taken out.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            log.warning("a tape could not be written: %s", reason)
        if then is not None:
            then()
