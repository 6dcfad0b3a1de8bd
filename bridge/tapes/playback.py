"""Plays one tape: its head, its chunks and its ending, each at its recorded time."""

import asyncio
from collections.abc import Awaitable, Callable

from bridge.tapes.file import StreamEnd, Tape, TapeHead


class Broken(Exception):
    """The tape ends improperly: with a reset, or without an answer."""


class Playback:
    """Waits until absolute times, so the time that the reader spends in between does not prolong the replay.

    It starts when it is created. `now` and `sleep` use seconds. A cancelled wait loses no data. Read the head first.
    """

    def __init__(self, tape: Tape, now: Callable[[], float], sleep: Callable[[float], Awaitable[object]]) -> None:
        self._tape, self._now, self._sleep = tape, now, sleep
        self._began_at = now()
        self._read = 0

    async def head(self) -> TapeHead:
        """Return the head of the response. Raises Broken."""
        head = self._tape.head
        if head is None:
            await self._end()
            raise Broken("The tape ends before an answer")
        await self._until(head.ms)
        return head

    async def read(self) -> bytes | None:
        """Return the next chunk; None at a proper end. It never returns at a silent end: cancel it. Raises Broken."""
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
