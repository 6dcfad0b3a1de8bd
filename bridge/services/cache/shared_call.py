"""One provider call whose response several events read (request coalescing).

`SharedCall` owns the provider's response; each event reads it through a `SharedResponse`. A reader that needs more data
than has arrived reads from the provider on behalf of all; while no reader does, nothing is read. Only sending the call
has a task of its own, because the event that started it may end while others go on.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from typing import Final

from bridge.errors import BridgeError
from bridge.relay.interfaces import ProviderCaller
from bridge.relay.memory import MemoryBudget
from bridge.services.cache.read_chain import ReadChain, ReadLink, Yielder
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse

MAX_LEAD_BYTES: Final = 1 << 20
"""Maximal lead of one reader over the slowest, once an answer is no longer held from its beginning."""
OnComplete = Callable[["SharedResponse", list[bytes]], None]
"""Called with a reader and all its reads when they are a complete answer, to be stored for the reader's `ttl_s`."""


class SharedCall:
    """Owns the provider's response, and closes it when the last reader detaches."""

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
        self._waiters: list[asyncio.Future[None]] = []
        self._is_connected = self._is_reading = False
        self._stored_ttl_s = 0
        self.owner = 0
        """The number of the reader that is charged for the call: the one that started it or, if that one left early,
        the first of those that still read."""
        self.answer: UpstreamResponse | None = None
        self.error: Exception | None = None
        """The reason why there is no answer, or no more of it."""
        self.is_ended = False
        """True after the clean end of the body."""

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

    async def advance(self, reader: "SharedResponse") -> None:
        """Read from the provider, or wait for the reader that does. The caller checks the state again afterwards."""
        if self.answer is None or self._is_reading or self._is_too_far_ahead(reader):
            await self._wait_for_change()
            return
        self._is_reading = True
        try:
            self._append(await self.answer.read())
        except Exception as error:
            self._fail(error)
        finally:
            self._is_reading = False
            self._notify()  # if this read was cancelled, another reader continues

    def on_read(self) -> None:
        """Wake readers that wait because they are too far ahead of the one that has just read."""
        if self._reads.first is None:
            self._notify()

    def mark_complete(self, reader: "SharedResponse") -> None:
        """Store the reader's data as a complete answer, for the longest lifetime that any of the readers requests."""
        answer = self.answer
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
            self._notify()
            return
        self._reads.release()
        self._on_closed(self)
        if self.answer is not None:
            await self.answer.aclose()
        elif self._call_task is not None:
            # By the loop's next iteration the task has started, so its cancellation releases its slot.
            asyncio.get_running_loop().call_soon(self._call_task.cancel)

    async def _send(self, call: ProviderCaller) -> None:
        try:
            answer = await call.send(self._connected)
        except Exception as error:
            self._fail(error)
        else:
            self.answer = answer
            if not self._readers:
                await answer.aclose()
            if not 200 <= answer.status < 300:
                self._on_closed(self)
        self._notify()

    def _connected(self) -> None:
        self._is_connected = True
        while self._unconnected:
            self._unconnected.popitem()[1]()

    def _append(self, data: bytes) -> None:
        if not data:
            self.is_ended = True
            self._on_closed(self)
            return
        self._reads.add(data)
        if self._reads.first is None:
            self._on_closed(self)

    def _fail(self, error: Exception) -> None:
        self.error = error.without_traceback() if isinstance(error, BridgeError) else error
        self._on_closed(self)

    def _is_too_far_ahead(self, reader: "SharedResponse") -> bool:
        if self._reads.first is not None:
            return False
        return reader.read_bytes - min(other.read_bytes for other in self._readers.values()) > MAX_LEAD_BYTES

    def _transfer_ownership(self, departing: "SharedResponse") -> None:
        if self.owner == departing.number and not departing.is_done and self.error is None:
            reading = (number for number, share in self._readers.items() if not share.is_done)
            self.owner = next(reading, self.owner)

    async def _wait_for_change(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._waiters.append(changed)
        await changed

    def _notify(self) -> None:
        changed, self._waiters = self._waiters, []
        for waiting in changed:
            if not waiting.done():
                waiting.set_result(None)


class SharedResponse(UpstreamResponse):
    """One event's view of a shared call. It must be closed, even if it was read only in part."""

    def __init__(self, shared_call: SharedCall, number: int, at: ReadLink, ttl_s: int) -> None:
        self._shared_call = shared_call
        self.number = number
        self._yielder = Yielder()
        self.ttl_s = ttl_s
        self.last_read = at
        """The link that was read last."""
        self.read_bytes = 0
        self.is_done = False
        """True if it was read to its end, or as far as its event needs."""

    async def open(self, call: ProviderCaller) -> None:
        """Return when the response's head has arrived. Raises what the call raises."""
        await self._shared_call.start(self, call)
        while self._shared_call.answer is None:
            self._check()
            await self._shared_call.advance(self)
        self.status, self.headers = self._shared_call.answer.status, self._shared_call.answer.headers

    @property
    def cached(self) -> bool:
        return self._shared_call.owner != self.number

    @property
    def ended(self) -> bool:
        return self._shared_call.is_ended and self.last_read.next is None

    def mark_complete(self) -> None:
        self.is_done = True
        self._shared_call.mark_complete(self)

    async def read(self) -> bytes:
        shared_call = self._shared_call
        if self.last_read.next is not None:
            await self._yielder.maybe_yield()
        while (link := self.last_read.next) is None:
            if shared_call.is_ended:
                self.is_done = True
                return b""
            self._check()
            await shared_call.advance(self)
        self.last_read = link
        self.read_bytes += len(link.data)
        self._yielder.count(link.data)
        shared_call.on_read()
        return link.data

    async def aclose(self) -> None:
        await self._shared_call.detach(self)

    def _check(self) -> None:
        error = self._shared_call.error
        if error is not None:
            # An exception that is raised in several tasks would collect the tracebacks of all.
            raise copy(error) if isinstance(error, BridgeError) else error
