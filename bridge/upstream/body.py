"""Response bodies that are delivered to a receiver as they arrive, at the seam of httpx.

`httpx.Response.stream` of the bridge's own transport is a `PushedBody`: its bytes reach the receiver within the call
of `data_received`, without a task switch. `pushed` turns the body of any other httpx transport into one, by a task.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Protocol

import httpx

TURN_BYTES: Final = 65_536
"""Bytes that a source delivers before it yields to other tasks."""

READ_COST_BYTES: Final = 2048
"""Bytes that each read counts in addition to its own, because handling a read has a fixed cost."""


class BodyReceiver(Protocol):
    """Takes a body as it arrives. The methods are called in the event loop, and neither block nor raise.

    A receiver may call `pause`, `resume`, `deliver` and `abort` of the body from inside its methods.
    """

    def data(self, data: bytes) -> None:
        """Take the bytes of one read; `data` is never empty."""

    def end(self) -> None:
        """Take note that the body is complete. Nothing is called after it."""

    def failed(self, error: Exception) -> None:
        """Take note that the body is cut off or damaged. Nothing is called after it.

        `error` is an httpx.RequestError whose text contains no secrets, or an unexpected exception.
        """


class Delivery(ABC):
    """A body that calls a receiver.

    Nothing is called before `deliver`, between `pause` and `resume`, and after the body is closed. What arrives
    meanwhile is kept; its amount is bounded, because the connection stops reading.
    """

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True once the whole body has arrived, and all of it was delivered."""

    @abstractmethod
    def deliver(self, receiver: BodyReceiver) -> None:
        """Call `receiver` from now on, at once with the bytes that are here. A later call replaces the receiver.

        If the whole body is here, `receiver.end` was called when this returns, unless the receiver pauses or the bytes
        are more than one turn of the loop may handle. A receiver that is given after the end gets the end again.
        """

    @abstractmethod
    def pause(self) -> None:
        """Stop delivering, and reading from the connection. May be called more than once."""

    @abstractmethod
    def resume(self) -> None:
        """Deliver what arrived meanwhile, and read on. May be called more than once."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the body at once. May be called more than once."""


class PushedBody(Delivery, httpx.AsyncByteStream):
    """A body that calls a receiver, or is iterated like every httpx stream. Use one of the two ways."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return Reads(self)


class Reads:
    """Reads a body by iteration. The body is paused while a read waits to be taken.

    Raises the error of `BodyReceiver.failed`. A cancelled read loses no data.
    """

    def __init__(self, body: Delivery) -> None:
        self._body = body
        self._reads: deque[bytes] = deque()
        self._error: Exception | None = None
        self._is_over = False
        self._is_delivering = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._is_delivering:
            self._is_delivering = True
            self._body.deliver(self)
        while not self._reads:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            self._body.resume()
            if not self._reads and self._error is None and not self._is_over:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        return self._reads.popleft()

    def data(self, data: bytes) -> None:
        self._reads.append(data)
        self._body.pause()
        self._wake()

    def end(self) -> None:
        self._is_over = True
        self._wake()

    def failed(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def pushed(stream: httpx.AsyncByteStream) -> PushedBody:
    """Return `stream`, if it is pushed already, or a body that a task reads from it."""
    return stream if isinstance(stream, PushedBody) else PumpedBody(stream)


class PumpedBody(PushedBody):
    """Reads any httpx stream in a task and calls the receiver. Owns the stream."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream
        self._receiver: BodyReceiver | None = None
        self._task: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._error: Exception | None = None
        self._is_over = self._is_closed = False

    @property
    def ended(self) -> bool:
        return self._is_over and self._error is None

    def deliver(self, receiver: BodyReceiver) -> None:
        if self._is_closed:
            return
        self._receiver = receiver
        if self._task is None:
            self._task = asyncio.create_task(self._pump(), name="pump of a body")
        elif self._is_over:
            self._finish()

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()
        if self._is_over:
            self._finish()

    async def aclose(self) -> None:
        """Close the stream, after the task that reads it has ended."""
        self._is_closed, self._receiver = True, None
        try:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
        finally:
            await self._stream.aclose()

    async def _pump(self) -> None:
        try:
            await self._deliver_reads()
        except httpx.RequestError as error:
            self._error = error.with_traceback(None)  # its frames would keep this object alive
        except Exception as error:  # a defect: the receiver reports it
            self._error = error
        self._finish()

    async def _deliver_reads(self) -> None:
        turn_bytes = 0
        await self._until_flowing()
        async for data in self._stream:
            turn_bytes += len(data) + READ_COST_BYTES
            if turn_bytes > TURN_BYTES:
                turn_bytes = 0
                await asyncio.sleep(0)
            await self._until_flowing()
            if data and self._receiver is not None:
                self._receiver.data(data)
            await self._until_flowing()  # a body that is paused is not read

    async def _until_flowing(self) -> None:
        while not self._flowing.is_set():  # it may have been cleared again before this task runs
            await self._flowing.wait()

    def _finish(self) -> None:
        """Tell the receiver, unless it has paused, how the body ended."""
        self._is_over = True
        if not self._flowing.is_set() or self._receiver is None:
            return
        receiver, self._receiver = self._receiver, None
        if self._error is None:
            receiver.end()
        else:
            receiver.failed(self._error)
