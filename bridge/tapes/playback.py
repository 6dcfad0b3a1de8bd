"""One tape while it plays: its head, then chunk by chunk, then its ending, each at its instant."""

import asyncio
from collections.abc import Awaitable, Callable

from bridge.tapes.file import StreamEnd, Tape, TapeHead


class Broken(Exception):
    """The tape ends here, and not properly: with a reset, or without an answer."""


class Playback:
    """Waits for instants, not for durations: what its reader does in between makes it no longer.

    It begins when it is made. `now` gives seconds, `sleep` takes them. A wait that is cancelled takes nothing away from
    the next. Read the head first.
    """

    def __init__(self, tape: Tape, now: Callable[[], float], sleep: Callable[[float], Awaitable[object]]) -> None:
        self._tape, self._now, self._sleep = tape, now, sleep
        self._began_at = now()
        self._read = 0

    async def head(self) -> TapeHead:
        """Raises Broken."""
        head = self._tape.head
        if head is None:
            await self._end()
            raise Broken("The tape ends before an answer")
        await self._until(head.ms)
        return head

    async def read(self) -> bytes | None:
        """The next chunk; None at the clean end. Never returns at a silent one: cancel it. Raises Broken."""
        if self._read == len(self._tape.chunks):
            await self._end()
            return None
        chunk = self._tape.chunks[self._read]
        await self._until(chunk.ms)
        self._read += 1
        return chunk.data

    async def _end(self) -> None:
        ending = self._tape.ending
        if ending.end in {StreamEnd.STALL, StreamEnd.CLIENT}:
            await asyncio.get_running_loop().create_future()
        if ending.ms is not None:
            await self._until(ending.ms)
        if ending.end is StreamEnd.RESET:
            raise Broken("The tape ends with a reset")

    async def _until(self, ms: int) -> None:
        delay_s = self._began_at + ms / 1000 - self._now()
        if delay_s > 0:
            await self._sleep(delay_s)
