"""Deliver reads that are in memory, without blocking other tasks."""

import asyncio
from abc import abstractmethod

from bridge.upstream.answer import UpstreamResponse
from bridge.upstream.body import READ_COST_BYTES, TURN_BYTES, BodyReceiver


class PacedResponse(UpstreamResponse):
    """Delivers each read by one call, and at most `TURN_BYTES` per turn of the loop, unless one read is longer.

    The reads come from a subclass, which calls `advance` when there may be more of them.
    """

    def __init__(self) -> None:
        self._receiver: BodyReceiver | None = None
        self._is_paused = self._is_delivering = self._is_closed = False
        self.is_over = False
        """True once the receiver was told how the body ended."""
        self._turn_bytes = 0
        self._next_turn: asyncio.Handle | None = None

    @abstractmethod
    def _peek(self) -> bytes | None:
        """Return the next read; None if it is not here."""

    @abstractmethod
    def _step(self, data: bytes) -> None:
        """Remove `data`, the next read, which is about to be delivered."""

    def _error(self) -> Exception | None:
        """Return the reason why no more reads will come, if they do not end properly."""
        return None

    def _changed(self) -> None:
        """Take note that the response may want more reads, or none for now."""

    def deliver(self, receiver: BodyReceiver) -> None:
        if not self._is_closed:
            self._receiver = receiver
            self.advance()

    def pause(self) -> None:
        self._is_paused = True
        self._changed()

    def resume(self) -> None:
        self._is_paused = False
        self.advance()

    async def aclose(self) -> None:
        self._is_closed, self._receiver = True, None
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def advance(self) -> None:
        """Deliver the reads that are here, as far as the receiver and the turn allow."""
        if self._is_delivering or self._next_turn is not None:
            return  # the loop that is running, or the next turn, goes on
        self._is_delivering = True
        try:
            self._deliver_reads()
        finally:
            self._is_delivering = False
        self._changed()

    def _deliver_reads(self) -> None:
        while (receiver := self._receiver) is not None and not self._is_paused:
            data = self._peek()
            if data is None:
                self._finish(receiver)
                return
            cost_bytes = len(data) + READ_COST_BYTES
            if self._turn_bytes and self._turn_bytes + cost_bytes > TURN_BYTES:
                self._next_turn = asyncio.get_running_loop().call_soon(self._start_turn)
                return
            self._turn_bytes += cost_bytes
            self._step(data)
            receiver.data(data)

    def _finish(self, receiver: BodyReceiver) -> None:
        if self.ended:
            self._receiver, self.is_over = None, True
            receiver.end()
        elif (error := self._error()) is not None:
            self._receiver, self.is_over = None, True
            receiver.failed(error)

    def _start_turn(self) -> None:
        self._next_turn = None
        self._turn_bytes = 0
        self.advance()
