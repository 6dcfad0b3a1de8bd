"""Run a provider on a real socket. A script per connection reads, sends and closes."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

from tests.support.paths import FIXTURES

TLS = FIXTURES / "tls"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Script = Callable[["Line"], Awaitable[None]]


class Line:
    """One accepted connection. A script that returns leaves it open until the peer closes it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        """Counted from 0, in the order of acceptance."""
        self._reader, self._writer = reader, writer

    async def head(self) -> bytes:
        """Return the head of the next request. Raises IncompleteReadError if the peer has closed."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def body(self, head: bytes) -> bytes:
        _, _, rest = head.lower().partition(b"content-length: ")
        return await self._reader.readexactly(int(rest.partition(b"\r\n")[0] or 0))

    async def request(self) -> bytes:
        """Read the next request and return its head."""
        head = await self.head()
        await self.body(head)
        return head

    async def send(self, *parts: bytes) -> None:
        # Not writelines: up to Python 3.13 an empty last part stays in asyncio's buffer, and the loop spins.
        self._writer.write(b"".join(parts))
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the peer has closed or reset the connection."""
        try:
            while await self._reader.read(65_536):
                pass
        except ConnectionError:
            return

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()

    async def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises IncompleteReadError if the peer has closed."""
        return await self._reader.readexactly(size)

    async def take(self, size: int) -> None:
        """Read `size` bytes and drop them."""
        await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with an RST instead of a FIN."""
        reset(self._writer)

    def drop(self) -> None:
        """Close without flushing. Does nothing if the connection is closed."""
        self._writer.transport.abort()


class Provider:
    """Listens inside its context. On exit it raises the exception of a script, if there was one."""

    def __init__(self, script: Script, *, tls: bool = False) -> None:
        self._script = script
        self._tls = server_context() if tls else None
        self._tasks: list[asyncio.Task[None]] = []
        self._lines: list[Line] = []
        self.port = 0

    @property
    def connections(self) -> int:
        """Number of connections accepted so far."""
        return len(self._lines)

    async def __aenter__(self) -> "Provider":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.drop()
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, _PEER_CLOSED):
                raise outcome

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(len(self._lines), reader, writer)
        self._lines.append(line)
        self._tasks.append(asyncio.create_task(self._play(line)))

    async def _play(self, line: Line) -> None:
        await self._script(line)


_PEER_CLOSED = (asyncio.IncompleteReadError, ConnectionError)
"""Exceptions in a script whose peer closes; they are ignored."""


def sends(*parts: bytes) -> Script:
    """Answer every request with these bytes and keep the connection open."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(*parts)

    return script


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with an RST in place of a FIN; do nothing if it is closed."""
    if writer.is_closing():  # uvloop still returns the descriptor, which may be another connection's by now
        return
    # A duplicate has the same options; uvloop's own object does not let them be set.
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def client_context() -> ssl.SSLContext:
    """Return a context that trusts only the test certificate."""
    return ssl.create_default_context(cafile=str(TLS / "localhost.pem"))


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost-key.pem")
    return context
