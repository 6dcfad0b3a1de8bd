"""A provider on real sockets that plays random scripts, and the ledger of all that it played."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.support.soak.plans import EventPlan
from tests.support.soak.plays import Play, play_of
from tests.support.socket_provider import reset, server_context

CLOSE_S: Final = 2.0

_LEFT = (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)
"""Exceptions on a connection that the bridge has closed."""


@dataclass(slots=True)
class Family:
    """The responses played for one event; events with the same cache key share them."""

    plan: EventPlan
    plays: list[Play] = field(default_factory=list)
    open_events: int = 0


class Ledger:
    """The open events and the responses played for them. The script of a call depends on the seed and the call."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._families: dict[int, Family] = {}
        self.calls = 0
        self.late_calls = 0
        """Calls for events that are over: the client cancelled or left while the bridge was connecting."""

    def __len__(self) -> int:
        return len(self._families)

    def begin(self, plan: EventPlan) -> Family:
        family = self._families.setdefault(plan.family, Family(plan))
        family.open_events += 1
        return family

    def end(self, plan: EventPlan) -> None:
        family = self._families[plan.family]
        family.open_events -= 1
        if not family.open_events:
            del self._families[plan.family]

    def play(self, number: int, step: int) -> Play | None:
        """Return the script of the next call of an event's step; None if the event is over."""
        family = self._families.get(number)
        if family is None:
            self.late_calls += 1
            return None
        self.calls += 1
        call = sum(play.step == step for play in family.plays)
        rng, plan = Random(f"{self._seed}/{number}/{step}/{call}"), family.plan
        kind = plan.steps[step].kind
        play = play_of(rng, f"{number}.{step}.{call}", step, kind, may_stall=plan.is_quick, big=plan.is_big)
        family.plays.append(play)
        return play


class FaultProvider:
    """Listens with and without TLS for the duration of a context."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        """Number of connections that were ever accepted."""
        self.port = self.tls_port = 0

    async def __aenter__(self) -> "FaultProvider":
        self._servers = [
            await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
            for context in (None, server_context())
        ]
        self.port, self.tls_port = (server.sockets[0].getsockname()[1] for server in self._servers)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        await self.drop_all()

    async def drop_all(self) -> None:
        """Close all connections, also those that the bridge keeps for later requests."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="fault provider")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except _LEFT:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Return True if the connection is kept."""
        head = await reader.readuntil(b"\r\n\r\n")
        number, _, step = _header(head, b"x-soak").partition(b".")
        play = self._ledger.play(int(number), int(step))
        if play is None:
            return False
        if play.reads_upload:
            await reader.readexactly(int(_header(head, b"content-length")))
        for piece in play.pieces:
            if writer.is_closing():
                return False
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(play.pause_s)
        return await self._end(play.ending, reader, writer)

    async def _end(self, ending: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if ending == "stall":
            while await reader.read(65_536):
                pass
        elif ending == "reset":
            reset(writer)
        elif ending == "fin":
            writer.close()
            with suppress(TimeoutError):  # with TLS the bridge's part of the closure may not come
                await asyncio.wait_for(writer.wait_closed(), CLOSE_S)
        return ending == "keep"


def _header(head: bytes, name: bytes) -> bytes:
    _, _, rest = head.lower().partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0]
