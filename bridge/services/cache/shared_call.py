"""One provider call whose response several events receive (request coalescing).

`SharedCall` owns the provider's response and receives its body; each event has a `SharedResponse`, which delivers the
body from the beginning at its receiver's own speed. While no receiver wants more than has arrived, the provider is not
read. Only sending the call has a task of its own, because the event that started it may end while others go on.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from typing import Final

from bridge.errors import BridgeError
from bridge.relay.interfaces import ProviderCaller
from bridge.relay.memory import MemoryBudget
from bridge.services.cache.paced import PacedResponse
from bridge.services.cache.read_chain import ReadChain, ReadLink
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse, break_of
from bridge.upstream.body import BodyReceiver

MAX_LEAD_BYTES: Final = 1 << 20
"""Maximal lead of one reader over the slowest, once an answer is no longer held from its beginning."""
OnComplete = Callable[["SharedResponse", list[bytes]], None]
"""Called with a reader and all its reads when they are a complete answer, to be stored for the reader's `ttl_s`."""


class SharedCall:
    """Receives the provider's response for its readers, and closes it when the last of them detaches."""

    def __init__(
        self, budget: MemoryBudget, tasks: Tasks, on_closed: "Callable[[SharedCall], None]", on_complete: OnComplete
    ) -> None:
        """`budget` limits the memory of all shared calls. `on_closed` is called, possibly more than once, when no
        further reader may join."""
        self._reads = ReadChain(budget)
        self._tasks = tasks
        self._on_closed = on_closed
        self._on_complete = on_complete
        self._readers: dict[int, SharedResponse] = {}
        self._last_number = 0
        self._unconnected: dict[int, Callable[[], None]] = {}
        self._start_lock = asyncio.Lock()
        self._call_task: asyncio.Task[None] | None = None
        self._responded = asyncio.Event()
        self._answer: UpstreamResponse | None = None
        self._is_connected = self._is_receiving = self._is_flowing = self._is_distributing = False
        self._stored_ttl_s = 0
        self.owner = 0
        """The number of the reader that is charged for the call: the one that started it or, if that one left early,
        the first of those that still read."""
        self._error: Exception | None = None
        self.is_ended = False
        """True after the clean end of the body."""

    @property
    def is_over(self) -> bool:
        """True if no more reads will come."""
        return self.is_ended or self._error is not None

    @property
    def error(self) -> Exception | None:
        """The reason why there is no answer, or no more of it: a new object for each reader that raises it.

        An exception that is raised in several tasks would collect the tracebacks of all.
        """
        return copy(self._error) if isinstance(self._error, BridgeError) else self._error

    def join(self, ttl_s: int) -> "SharedResponse":
        assert self._reads.first is not None
        self._last_number += 1
        response = SharedResponse(self, self._last_number, self._reads.first, ttl_s)
        self._readers[self._last_number] = response
        return response

    async def start(self, reader: "SharedResponse", call: ProviderCaller) -> None:
        """Return once the call has started. The first reader that gets a slot at the provider starts it.

        Each reader waits and is refused independently. Raises what `ProviderCaller.acquire_slot` raises.
        """
        with call.waiting() if self._start_lock.locked() else nullcontext():
            async with self._start_lock:
                if self._call_task is None:
                    await call.acquire_slot()
                    self.owner = reader.number
                    self._call_task = self._tasks.start(self._send(call), "shared call")
        if self._is_connected:
            call.on_connected()
        else:
            self._unconnected[reader.number] = call.on_connected

    async def answer(self) -> UpstreamResponse:
        """Return the provider's response once its head has arrived. Raises what the call raised."""
        await self._responded.wait()
        error = self.error
        if self._answer is None and error is not None:
            raise error
        assert self._answer is not None
        return self._answer

    def data(self, data: bytes) -> None:
        link = self._reads.add(data)
        if self._reads.first is None:
            self._on_closed(self)
        self._is_distributing = True
        try:
            for reader in list(self._readers.values()):  # a reader may leave or join meanwhile
                reader.take(link)
        finally:
            self._is_distributing = False
        self.update_flow()

    def end(self) -> None:
        self.is_ended = True
        self._on_closed(self)
        self._finish()

    def failed(self, error: Exception) -> None:
        self._fail(break_of(error))
        self._finish()

    def update_flow(self) -> None:
        """Receive from the provider while a reader waits for data that may come. Call it when a reader changes."""
        answer = self._answer
        if answer is None or self._is_distributing or self.is_over:
            return
        flows = self._is_wanted() and (self._reads.first is not None or not self._is_lead_reached())
        if flows is self._is_flowing:
            return
        self._is_flowing = flows
        if not flows:
            answer.pause()
        elif self._is_receiving:
            answer.resume()
        else:
            self._is_receiving = True
            answer.deliver(self)

    def mark_complete(self, reader: "SharedResponse") -> None:
        """Store the reader's data as a complete answer, for the longest lifetime that any of the readers requests."""
        answer = self._answer
        if (
            self._reads.first is None
            or answer is None
            or not 200 <= answer.status < 300
            or reader.ttl_s <= self._stored_ttl_s
        ):
            return
        self._stored_ttl_s = reader.ttl_s
        self._on_complete(reader, self._reads.reads_until(reader.last_read))

    async def detach(self, reader: "SharedResponse") -> None:
        """Remove a reader. Calling it again has no effect."""
        if self._readers.pop(reader.number, None) is None:
            return
        self._unconnected.pop(reader.number, None)
        if self._readers:
            self._transfer_ownership(reader)
            self.update_flow()
            return
        self._reads.release()
        self._on_closed(self)
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.aclose()
        elif self._call_task is not None:
            # By the loop's next iteration the task has started, so its cancellation releases its slot.
            asyncio.get_running_loop().call_soon(self._call_task.cancel)

    async def _send(self, call: ProviderCaller) -> None:
        try:
            answer = await call.send(self._connected)
        except Exception as error:
            self._fail(error)
        else:
            if not self._readers:
                await answer.aclose()
                return
            self._answer = answer
            if not 200 <= answer.status < 300:
                self._on_closed(self)
        self._responded.set()

    def _connected(self) -> None:
        self._is_connected = True
        while self._unconnected:
            self._unconnected.popitem()[1]()

    def _fail(self, error: Exception) -> None:
        self._error = error.without_traceback() if isinstance(error, BridgeError) else error
        self._on_closed(self)

    def _finish(self) -> None:
        """Tell the readers the end. If one of them is not that far yet, the provider's response is closed already."""
        for reader in list(self._readers.values()):
            reader.advance()
        if self._answer is not None and not all(reader.is_over for reader in self._readers.values()):
            self._tasks.start(self._answer.aclose(), "closing a shared answer")

    def _is_wanted(self) -> bool:
        for reader in self._readers.values():  # noqa: SIM110  # called for each read, and a generator takes longer
            if reader.is_waiting:
                return True
        return False

    def _is_lead_reached(self) -> bool:
        """Return True if the slowest reader is too far behind. The fastest reader has all the reads."""
        return self._reads.size_bytes - min(reader.read_bytes for reader in self._readers.values()) > MAX_LEAD_BYTES

    def _transfer_ownership(self, departing: "SharedResponse") -> None:
        if self.owner == departing.number and not departing.is_done and self._error is None:
            reading = (number for number, share in self._readers.items() if not share.is_done)
            self.owner = next(reading, self.owner)


class SharedResponse(PacedResponse):
    """One event's view of a shared call. It must be closed, even if it was received only in part."""

    def __init__(self, shared_call: SharedCall, number: int, at: ReadLink, ttl_s: int) -> None:
        super().__init__()
        self._shared_call = shared_call
        self.number = number
        self.ttl_s = ttl_s
        self.last_read = at
        """The link that was delivered last."""
        self.read_bytes = 0
        self.is_done = False
        """True if it was delivered to its end, or as far as its event needs."""

    async def open(self, call: ProviderCaller) -> None:
        """Return when the response's head has arrived. Raises what the call raises."""
        await self._shared_call.start(self, call)
        answer = await self._shared_call.answer()
        self.status, self.headers = answer.status, answer.headers

    @property
    def cached(self) -> bool:
        return self._shared_call.owner != self.number

    @property
    def ended(self) -> bool:
        return self._shared_call.is_ended and self.last_read.next is None

    def mark_complete(self) -> None:
        self.is_done = True
        self._shared_call.mark_complete(self)

    async def aclose(self) -> None:
        await super().aclose()
        await self._shared_call.detach(self)

    @property
    def is_waiting(self) -> bool:
        """True if all reads that have arrived were delivered, and the receiver wants more."""
        return self._receiver is not None and not self._is_paused and self.last_read.next is None

    def take(self, link: ReadLink) -> None:
        """Deliver a read that has just arrived, unless the receiver pauses or has to get earlier ones first."""
        receiver = self._receiver
        if receiver is None or self._is_paused or self._is_delivering or self.last_read.next is not link:
            return  # `advance` delivers it
        self._turn_bytes = 0  # the provider's connection bounds what arrives in one turn
        self._is_delivering = True
        try:
            self._step(link.data)
            receiver.data(link.data)
        finally:
            self._is_delivering = False
        if link.next is not None or self._shared_call.is_over:
            self.advance()  # more has arrived within the call

    def _peek(self) -> bytes | None:
        link = self.last_read.next
        return None if link is None else link.data

    def _step(self, data: bytes) -> None:
        assert self.last_read.next is not None
        self.last_read = self.last_read.next
        self.read_bytes += len(data)

    def _finish(self, receiver: BodyReceiver) -> None:
        self.is_done = self.is_done or self.ended
        super()._finish(receiver)

    def _error(self) -> Exception | None:
        return self._shared_call.error

    def _changed(self) -> None:
        self._shared_call.update_flow()
