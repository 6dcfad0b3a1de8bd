"""Connections without sockets: replies are scripted read by read, for our transport and for httpcore's pool."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import httpcore
import httpx

from bridge.upstream.connection import Connection, PushedAnswer
from bridge.upstream.pool import Pool
from bridge.upstream.transport import HttpTransport

Ending = Literal["open", "fin", "reset"]
QUIET_TURNS = 12
"""Iterations of the loop after which nobody who was about to do something has not done it."""


@dataclass(frozen=True)
class Reply:
    """The reads that answer one request, and what happens to the connection after them."""

    reads: tuple[bytes, ...]
    ending: Ending = "open"


class MemoryNetwork:
    """Gives each request the next reply, on whichever connection it comes."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self.replies = deque(replies)
        self.connections = 0
        self.activity = 0
        """Counts everything that happens, so that a standstill can be noticed."""

    async def outcome_of(self, exchange: Any) -> Any:
        """Run a coroutine; None if it waits for bytes that never come."""
        task = asyncio.create_task(exchange)
        quiet_turns, seen = 0, -1
        while not task.done() and quiet_turns < QUIET_TURNS:
            quiet_turns = quiet_turns + 1 if seen == self.activity else 0
            seen = self.activity
            await asyncio.sleep(0)
        if task.done():
            return await task
        task.cancel()
        await asyncio.wait([task])
        return None


class MemoryTransport(asyncio.Transport):
    """The loop's side of a protocol. Each read takes one iteration of the loop."""

    def __init__(self, protocol: asyncio.Protocol, network: MemoryNetwork) -> None:
        super().__init__()
        self._protocol, self._network = protocol, network
        self._events: deque[Callable[[], object]] = deque()
        self._is_scheduled = self._is_closed = False
        self.is_reading_paused = False
        self.writes: list[int] = []
        """Sizes of the writes."""
        self.after_write: Callable[[], object] = bool
        self.write_buffer_bytes = 0
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        return self._is_closed

    def get_write_buffer_size(self) -> int:
        return self.write_buffer_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(len(data))
        self.after_write()
        if b"\r\n\r\n" in bytes(data) and self._network.replies:
            self.play(self._network.replies.popleft())

    def play(self, reply: Reply) -> None:
        """Let the reply arrive."""
        self._events.extend(lambda read=read: self._protocol.data_received(read) for read in reply.reads)
        if reply.ending == "fin":
            self._events.append(self._protocol.eof_received)
        if reply.ending != "open":
            error = ConnectionResetError() if reply.ending == "reset" else None
            self._events.append(lambda: self.lose(error))
        self._schedule()

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._events.clear()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._events and not self._is_scheduled and not self.is_reading_paused:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._happen)

    def _happen(self) -> None:
        self._is_scheduled = False
        if self._events and not self.is_reading_paused:
            self._network.activity += 1
            self._events.popleft()()
            self._schedule()

    def lose(self, error: Exception | None) -> None:
        """Report that the connection is lost: by a reset, or without an error closed properly."""
        if not self._is_closed:
            self._is_closed = True
            self._protocol.connection_lost(error)


class _MemoryConnector:
    """Stands in for `dial.TcpConnector`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    async def connect(self, url: httpx.URL, protocol: Callable[[], Any]) -> Any:
        self._network.connections += 1
        made = protocol()
        MemoryTransport(made, self._network)
        return made

    async def aclose(self) -> None:
        """Do nothing."""


def our_transport(network: MemoryNetwork) -> HttpTransport:
    transport = HttpTransport()
    transport._pool = Pool(None)
    transport._pool._connector = _MemoryConnector(network)  # type: ignore[assignment]  # in its place
    return transport


class _MemoryStream(httpcore.AsyncNetworkStream):
    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._reads: deque[bytes] = deque()
        self._ending: Ending = "open"

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's
        self._network.activity += 1
        if self._reads:
            read = self._reads.popleft()
            if len(read) > max_bytes:
                self._reads.appendleft(read[max_bytes:])
            return read[:max_bytes]
        if self._ending == "reset":
            raise httpcore.ReadError
        if self._ending == "open":
            await asyncio.get_running_loop().create_future()
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's
        self._network.activity += 1
        if b"\r\n\r\n" in buffer and self._network.replies:
            reply = self._network.replies.popleft()
            self._reads += reply.reads
            self._ending = reply.ending

    async def aclose(self) -> None:
        """Do nothing."""

    def get_extra_info(self, info: str) -> Any:
        return bool(self._reads or self._ending != "open") if info == "is_readable" else None


class _MemoryBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    async def connect_tcp(self, *args: object, **options: object) -> httpcore.AsyncNetworkStream:
        self._network.connections += 1
        return _MemoryStream(self._network)


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used. httpx would load the system's certificates for each transport."""


def httpx_transport(network: MemoryNetwork) -> httpx.AsyncHTTPTransport:
    transport = httpx.AsyncHTTPTransport(verify=_NO_TLS)
    transport._pool = httpcore.AsyncConnectionPool(network_backend=_MemoryBackend(network))
    return transport


class Owner:
    """Notes which connections come back."""

    def __init__(self) -> None:
        self.released: list[Connection] = []
        self.forgotten: list[Connection] = []

    def release(self, connection: Connection) -> None:
        self.released.append(connection)

    def forget(self, connection: Connection) -> None:
        self.forgotten.append(connection)


class Peer:
    """A connection, and the loop's side of it."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.connection = Connection(self.owner, ("http", b"host"), "host:80")
        self.transport = MemoryTransport(self.connection, MemoryNetwork([]))

    def request(self, content: bytes = b"", method: str = "POST") -> PushedAnswer:
        return self.connection.send(method, b"POST / HTTP/1.1\r\n\r\n", content)

    def arrive(self, *reads: bytes) -> None:
        for read in reads:
            self.connection.data_received(read)

    def lose(self, error: Exception | None = None) -> None:
        self.transport.lose(error)

    @property
    def is_kept(self) -> bool:
        return self.owner.released == [self.connection] and not self.transport.is_closing()
