"""Keep connections between requests. Their number is not limited here: `Upstream` limits calls per provider."""

import asyncio
import ssl
from functools import partial
from typing import Final

import httpx

from bridge.upstream.connection import Connection
from bridge.upstream.dial import TcpConnector, peer_of

KEEPALIVE_S: Final = 75.0

Origin = tuple[str, bytes]
"""Scheme of a URL, and its host with a port that is not the scheme's own."""


class Pool:
    """Connections by origin. The one that was used last is used next, so that the others can expire."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._connector = TcpConnector(ssl_context)
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        """In the order in which they became idle. The sweeper removes empty lists."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self, origin: Origin) -> Connection | None:
        """Return a connection that was used before; None if there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                if self._loop.time() - connection.idle_since < KEEPALIVE_S:
                    connection.is_reused = True
                    return connection
                connection.abort()
        return None

    async def connect(self, origin: Origin, url: httpx.URL) -> Connection:
        """Return a new connection. Raises as `TcpConnector.connect` does."""
        connection = await self._connector.connect(url, partial(Connection, self, origin, peer_of(url)))
        if self._is_closed:
            connection.abort()
            raise httpx.ConnectError(f"cannot connect to {peer_of(url)}: the transport is closed")
        if connection.is_usable:
            self._open.add(connection)
        return connection

    def drop_idle(self, origin: Origin) -> None:
        """Close the idle connections to an origin."""
        for connection in self._idle.pop(origin, ()):
            connection.abort()

    def release(self, connection: Connection) -> None:
        """Keep a connection whose response is complete."""
        connection.idle_since = self._loop.time()
        idle = self._idle.get(connection.origin)
        if idle is None:
            self._idle[connection.origin] = [connection]
        else:
            idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE_S, self._sweep)

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    async def aclose(self) -> None:
        """Close all connections, including those in use."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.fail()
        await self._connector.aclose()

    def _sweep(self) -> None:
        """Close expired connections, and come back when the next one expires."""
        self._sweeper = None
        expired_at = self._loop.time() - KEEPALIVE_S
        for origin, idle in list(self._idle.items()):
            for connection in [connection for connection in idle if connection.idle_since <= expired_at]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            oldest = min(idle[0].idle_since for idle in self._idle.values())
            self._sweeper = self._loop.call_at(oldest + KEEPALIVE_S, self._sweep)
