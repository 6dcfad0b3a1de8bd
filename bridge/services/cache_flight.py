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
from bridge.relay.budget import Budget
from bridge.relay.services import Dial
from bridge.services.cache_pace import Pace
from bridge.services.cache_reads import Link, Reads
from bridge.tasks import Tasks
from bridge.upstream.answer import Answer

WINDOW_BYTES: Final = 1 << 20
"""How far one reader may be ahead of the slowest, once an answer is not held from its beginning any more."""
Whole = Callable[["Share", list[bytes]], None]
"""Told that what the share has read, which is this, is a whole answer, to be kept as long as its reader asks."""


class Flight:
    """Lives as long as it has a share. Owns the provider's answer, and closes it when the last share leaves."""

    def __init__(self, room: Budget, tasks: Tasks, on_shut: "Callable[[Flight], None]", on_whole: Whole) -> None:
        """`room` is what all flights may hold; `on_shut` is called, maybe more than once, when none may join it."""
        self._reads = Reads(room)
        self._tasks = tasks
        self._on_shut = on_shut
        self._on_whole = on_whole
        self._shares: dict[int, Share] = {}
        self._joined = 0
        self._unconnected: dict[int, Callable[[], None]] = {}
        self._leading = asyncio.Lock()
        self._dialling: asyncio.Task[None] | None = None
        self._changed: list[asyncio.Future[None]] = []
        self._is_connected = self._is_reading = False
        self._kept_s = 0
        self.payer = 0
        """The number of the share whose call it is: who began it; or, if that one left before the end, who joined
        first of those still reading."""
        self.answer: Answer | None = None
        self.error: Exception | None = None
        """Why there is no answer, or no more of it."""
        self.is_ended = False
        """The body has come to its clean end."""

    def join(self, ttl_s: int) -> "Share":
        assert self._reads.first is not None
        self._joined += 1
        share = self._shares[self._joined] = Share(self, self._joined, self._reads.first, ttl_s)
        return share

    async def begin(self, share: "Share", dial: Dial) -> None:
        """Returns once the call has begun; the first to have a turn at the provider begins it.

        Each waits, and is refused, for itself. Raises what `dial.enter` does.
        """
        with dial.in_line() if self._leading.locked() else nullcontext():
            async with self._leading:
                if self._dialling is None:
                    await dial.enter()
                    self.payer = share.number
                    self._dialling = self._tasks.start(self._dial(dial), "shared call")
        if self._is_connected:
            dial.on_connected()
        else:
            self._unconnected[share.number] = dial.on_connected

    async def more(self, share: "Share") -> None:
        """Read, or wait for whoever does. Returns when something has changed: look again."""
        if self.answer is None or self._is_reading or self._is_too_far(share):
            await self._change()
            return
        self._is_reading = True
        try:
            self._take(await self.answer.read())
        except Exception as error:
            self._fail(error)
        finally:
            self._is_reading = False
            self._tell()  # and if this read was cancelled, another share goes on with it

    def passed(self) -> None:
        """A share has read what had come already."""
        if self._reads.first is None:
            self._tell()  # one that was too far ahead may have waited for it

    def keep(self, share: "Share") -> None:
        """What the share has read is whole and good. It is kept for as long as the most patient of the shares asks."""
        answer = self.answer
        if self._reads.first is None or answer is None or not 200 <= answer.status < 300 or share.ttl_s <= self._kept_s:
            return
        self._kept_s = share.ttl_s
        self._on_whole(share, self._reads.up_to(share.at))

    async def leave(self, share: "Share") -> None:
        """Once or more often."""
        if self._shares.pop(share.number, None) is None:
            return
        self._unconnected.pop(share.number, None)
        if self._shares:
            self._pass_the_bill(share)
            self._tell()
            return
        self._reads.let_go()
        self._on_shut(self)
        if self.answer is not None:
            await self.answer.aclose()
        elif self._dialling is not None:
            # In the loop's next turn, by when the task has begun, and gives back what it was handed.
            asyncio.get_running_loop().call_soon(self._dialling.cancel)

    async def _dial(self, dial: Dial) -> None:
        try:
            answer = await dial.call(self._connected)
        except Exception as error:
            self._fail(error)
        else:
            self.answer = answer
            if not self._shares:
                await answer.aclose()
            if not 200 <= answer.status < 300:
                self._on_shut(self)
        self._tell()

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
        self.error = error.bare() if isinstance(error, BridgeError) else error
        self._on_shut(self)

    def _is_too_far(self, share: "Share") -> bool:
        if self._reads.first is not None:
            return False
        return share.read_bytes - min(other.read_bytes for other in self._shares.values()) > WINDOW_BYTES

    def _pass_the_bill(self, left: "Share") -> None:
        if self.payer == left.number and not left.is_done and self.error is None:
            reading = (number for number, share in self._shares.items() if not share.is_done)
            self.payer = next(reading, self.payer)

    async def _change(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._changed.append(changed)
        await changed

    def _tell(self) -> None:
        changed, self._changed = self._changed, []
        for waiting in changed:
            if not waiting.done():
                waiting.set_result(None)


class Share(Answer):
    """What one event has of a flight. To be closed, however far it was read."""

    def __init__(self, flight: Flight, number: int, at: Link, ttl_s: int) -> None:
        self._flight = flight
        self.number = number
        self._pace = Pace()
        self.ttl_s = ttl_s
        self.at = at
        """What was read last."""
        self.read_bytes = 0
        self.is_done = False
        """It was read to its end, or as far as anybody needs."""

    async def open(self, dial: Dial) -> None:
        """Returns when the answer's head has come. Raises what `dial` does."""
        await self._flight.begin(self, dial)
        while self._flight.answer is None:
            self._check()
            await self._flight.more(self)
        self.status, self.headers = self._flight.answer.status, self._flight.answer.headers

    @property
    def cached(self) -> bool:
        return self._flight.payer != self.number

    @property
    def ended(self) -> bool:
        return self._flight.is_ended and self.at.next is None

    def keep(self) -> None:
        self.is_done = True
        self._flight.keep(self)

    async def read(self) -> bytes:
        flight = self._flight
        if self.at.next is not None:
            await self._pace.turn()
        while (link := self.at.next) is None:
            if flight.is_ended:
                self.is_done = True
                return b""
            self._check()
            await flight.more(self)
        self.at = link
        self.read_bytes += len(link.data)
        self._pace.gave(link.data)
        flight.passed()
        return link.data

    async def aclose(self) -> None:
        await self._flight.leave(self)

    def _check(self) -> None:
        error = self._flight.error
        if error is not None:
            # One exception raised in several tasks would gather the tracebacks of all.
            raise copy(error) if isinstance(error, BridgeError) else error
