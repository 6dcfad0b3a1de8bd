"""One provider call that several events read: a flight, and each event's share of it.

Whoever wants more than has come reads for all; while nobody does, nothing is read. Only the call itself has a task of
its own, because the event that asked for it may leave while others stay.
"""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from typing import Final

from bridge.errors import BridgeError
from bridge.relay.interfaces import ProviderCaller
from bridge.relay.memory import MemoryBudget
from bridge.services.cache.key import MAX_ANSWER_BYTES
from bridge.tasks import Tasks
from bridge.upstream.answer import UpstreamResponse

LINK_BYTES: Final = 100
"""About what a read takes in memory beside its bytes."""


class ReadLink:
    """One read, and the next. What is not held from its beginning is gone once the slowest reader has passed it."""

    __slots__ = ("data", "next")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.next: ReadLink | None = None


class ReadChain:
    """Holds them from the beginning, as long as they are no longer than an answer that is kept, and there is room."""

    def __init__(self, room: MemoryBudget) -> None:
        """`room` is shared with others."""
        self._room = room
        self._last = ReadLink(b"")
        self._held_bytes = 0
        self.first: ReadLink | None = self._last
        """An empty one, before the first read; None when the beginning is not held any more."""

    def add(self, data: bytes) -> None:
        link = self._last.next = ReadLink(data)
        self._last = link
        if self.first is None:
            return
        if self._room.is_full or self._held_bytes > MAX_ANSWER_BYTES:
            self.release()
            return
        size = len(data) + LINK_BYTES
        self._room.acquire(size, overdraw=True)
        self._held_bytes += size

    def release(self) -> None:
        """Of the beginning."""
        self.first = None
        self._room.release(self._held_bytes)
        self._held_bytes = 0

    def up_to(self, last: ReadLink) -> list[bytes]:
        """From the beginning, which is still held."""
        link, reads = self.first, []
        while link is not last:
            assert link is not None
            link = link.next
            assert link is not None
            reads.append(link.data)
        return reads


TURN_BYTES: Final = 65_536
READ_BYTES: Final = 2048
"""What a read counts as beside its bytes: every one costs its reader something."""


class Yielder:
    """Without a wait, who reads would keep everybody else of the process waiting until all is read."""

    def __init__(self) -> None:
        self._bytes_since_yield = 0

    def count(self, data: bytes) -> None:
        self._bytes_since_yield += len(data) + READ_BYTES

    async def maybe_yield(self) -> None:
        """Before more is given: from time to time the others have a turn."""
        if self._bytes_since_yield > TURN_BYTES:
            self._bytes_since_yield = 0
            await asyncio.sleep(0)


WINDOW_BYTES: Final = 1 << 20
"""How far one reader may be ahead of the slowest, once an answer is not held from its beginning any more."""
Whole = Callable[["SharedResponse", list[bytes]], None]
"""Told that what the share has read, which is this, is a whole answer, to be kept as long as its reader asks."""


class SharedCall:
    """Lives as long as it has a share. Owns the provider's answer, and closes it when the last share leaves."""

    def __init__(
        self, room: MemoryBudget, tasks: Tasks, on_shut: "Callable[[SharedCall], None]", on_whole: Whole
    ) -> None:
        """`room` is what all flights may hold; `on_shut` is called, maybe more than once, when none may join it."""
        self._reads = ReadChain(room)
        self._tasks = tasks
        self._on_shut = on_shut
        self._on_whole = on_whole
        self._readers: dict[int, SharedResponse] = {}
        self._joined = 0
        self._unconnected: dict[int, Callable[[], None]] = {}
        self._leading = asyncio.Lock()
        self._dialling: asyncio.Task[None] | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._is_connected = self._is_reading = False
        self._kept_s = 0
        self.owner = 0
        """The number of the share whose call it is: who began it; or, if that one left before the end, who joined
        first of those still reading."""
        self.answer: UpstreamResponse | None = None
        self.error: Exception | None = None
        """Why there is no answer, or no more of it."""
        self.is_ended = False
        """The body has come to its clean end."""

    def join(self, ttl_s: int) -> "SharedResponse":
        assert self._reads.first is not None
        self._joined += 1
        share = self._readers[self._joined] = SharedResponse(self, self._joined, self._reads.first, ttl_s)
        return share

    async def begin(self, reader: "SharedResponse", call: ProviderCaller) -> None:
        """Returns once the call has begun; the first to have a turn at the provider begins it.

        Each waits, and is refused, for itself. Raises what `dial.enter` does.
        """
        with call.waiting() if self._leading.locked() else nullcontext():
            async with self._leading:
                if self._dialling is None:
                    await call.acquire_slot()
                    self.owner = reader.number
                    self._dialling = self._tasks.start(self._dial(call), "shared call")
        if self._is_connected:
            call.on_connected()
        else:
            self._unconnected[reader.number] = call.on_connected

    async def advance(self, reader: "SharedResponse") -> None:
        """Read, or wait for whoever does. Returns when something has changed: look again."""
        if self.answer is None or self._is_reading or self._is_too_far(reader):
            await self._change()
            return
        self._is_reading = True
        try:
            self._take(await self.answer.read())
        except Exception as error:
            self._fail(error)
        finally:
            self._is_reading = False
            self._notify()  # and if this read was cancelled, another share goes on with it

    def passed(self) -> None:
        """A share has read what had come already."""
        if self._reads.first is None:
            self._notify()  # one that was too far ahead may have waited for it

    def mark_complete(self, reader: "SharedResponse") -> None:
        """What the share has read is whole and good. It is kept for as long as the most patient of the shares asks."""
        answer = self.answer
        if (
            self._reads.first is None
            or answer is None
            or not 200 <= answer.status < 300
            or reader.ttl_s <= self._kept_s
        ):
            return
        self._kept_s = reader.ttl_s
        self._on_whole(reader, self._reads.up_to(reader.at))

    async def detach(self, reader: "SharedResponse") -> None:
        """Once or more often."""
        if self._readers.pop(reader.number, None) is None:
            return
        self._unconnected.pop(reader.number, None)
        if self._readers:
            self._transfer_ownership(reader)
            self._notify()
            return
        self._reads.release()
        self._on_shut(self)
        if self.answer is not None:
            await self.answer.aclose()
        elif self._dialling is not None:
            # In the loop's next turn, by when the task has begun, and gives back what it was handed.
            asyncio.get_running_loop().call_soon(self._dialling.cancel)

    async def _dial(self, call: ProviderCaller) -> None:
        try:
            answer = await call.send(self._connected)
        except Exception as error:
            self._fail(error)
        else:
            self.answer = answer
            if not self._readers:
                await answer.aclose()
            if not 200 <= answer.status < 300:
                self._on_shut(self)
        self._notify()

    def _connected(self) -> None:
        self._is_connected = True
        while self._unconnected:
            self._unconnected.popitem()[1]()

    def _take(self, data: bytes) -> None:
        if not data:
            self.is_ended = True
            self._on_shut(self)
            return
        self._reads.add(data)
        if self._reads.first is None:
            self._on_shut(self)

    def _fail(self, error: Exception) -> None:
        self.error = error.without_traceback() if isinstance(error, BridgeError) else error
        self._on_shut(self)

    def _is_too_far(self, reader: "SharedResponse") -> bool:
        if self._reads.first is not None:
            return False
        return reader.read_bytes - min(other.read_bytes for other in self._readers.values()) > WINDOW_BYTES

    def _transfer_ownership(self, left: "SharedResponse") -> None:
        if self.owner == left.number and not left.is_done and self.error is None:
            reading = (number for number, share in self._readers.items() if not share.is_done)
            self.owner = next(reading, self.owner)

    async def _change(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._changed.append(changed)
        await changed

    def _notify(self) -> None:
        changed, self._changed = self._changed, []
        for waiting in changed:
            if not waiting.done():
                waiting.set_result(None)


class SharedResponse(UpstreamResponse):
    """What one event has of a flight. To be closed, however far it was read."""

    def __init__(self, shared_call: SharedCall, number: int, at: ReadLink, ttl_s: int) -> None:
        self._shared_call = shared_call
        self.number = number
        self._yielder = Yielder()
        self.ttl_s = ttl_s
        self.at = at
        """What was read last."""
        self.read_bytes = 0
        self.is_done = False
        """It was read to its end, or as far as anybody needs."""

    async def open(self, call: ProviderCaller) -> None:
        """Returns when the answer's head has come. Raises what `dial` does."""
        await self._shared_call.begin(self, call)
        while self._shared_call.answer is None:
            self._check()
            await self._shared_call.advance(self)
        self.status, self.headers = self._shared_call.answer.status, self._shared_call.answer.headers

    @property
    def cached(self) -> bool:
        return self._shared_call.owner != self.number

    @property
    def ended(self) -> bool:
        return self._shared_call.is_ended and self.at.next is None

    def mark_complete(self) -> None:
        self.is_done = True
        self._shared_call.mark_complete(self)

    async def read(self) -> bytes:
        shared_call = self._shared_call
        if self.at.next is not None:
            await self._yielder.maybe_yield()
        while (link := self.at.next) is None:
            if shared_call.is_ended:
                self.is_done = True
                return b""
            self._check()
            await shared_call.advance(self)
        self.at = link
        self.read_bytes += len(link.data)
        self._yielder.count(link.data)
        shared_call.passed()
        return link.data

    async def aclose(self) -> None:
        await self._shared_call.detach(self)

    def _check(self) -> None:
        error = self._shared_call.error
        if error is not None:
            # One exception raised in several tasks would gather the tracebacks of all.
            raise copy(error) if isinstance(error, BridgeError) else error
