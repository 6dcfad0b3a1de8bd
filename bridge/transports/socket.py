"""Sends HTTP requests over one socket to a bridge, on an event loop. It is independent of the HTTP library.

Nothing is sent twice: a request is sent on a new socket only if it was never on the lost one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final

from bridge.client import Bridge, CannotConnect, Config, ConnectionLost, Exchange, Step, connect
from bridge.protocol.frames import as_sdk_error_body
from bridge.transports.requests import TransportRequest, step_of
from bridge.transports.responses import Headers, TransportTimeout, as_bytes, headers_of, refusal
from bridge.transports.routes import Routes

_ONE_ATTEMPT: Final[Config] = {"maxAttempts": 1}
"""The SDK retries; retries of the bridge would multiply them."""

_CLOSED: Final = "the answer was closed before its end"


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """URL, token and TLS options of the bridge."""

    url: str
    token: str | None = field(default=None, repr=False)
    ssl: SSLContext | bool = True

    def dial(self) -> connect:
        # No reconnection in the background: the SDK retries and needs to know at once that the bridge is unreachable.
        return connect(self.url, self.token, ssl=self.ssl, reconnect=False)


class SocketResponse:
    """A response head with a body that is read in pieces. Closing it before its end cancels the event."""

    def __init__(self, status: int, headers: Headers, read_s: float | None, rest: Exchange | bytes) -> None:
        self.status = status
        self.headers = as_bytes(headers)
        self._read_s = read_s
        self._rest = rest
        self._fault: Exception | None = None
        self._is_read = False
        """The end of the body has been read."""

    async def read(self) -> bytes:
        """Return the next piece of the body; b"" after the last. Raises CallFailed and TransportTimeout.

        A broken body raises at each further read, so that it never looks complete.
        """
        if self._fault is not None:
            raise self._fault
        if isinstance(self._rest, bytes):
            body, self._rest = self._rest, b""
            return body
        try:
            return await self._run(self._rest)
        except BaseException as error:
            self._fault = error if isinstance(error, Exception) else None
            self.close()
            raise

    def close(self) -> None:
        """Cancel the event unless it is over. The rest of the body cannot be read afterwards."""
        if isinstance(self._rest, Exchange):
            self._rest.close()
            if self._fault is None and not self._is_read:
                self._fault = ConnectionLost(_CLOSED)

    async def _run(self, exchange: Exchange) -> bytes:
        async with _within(self._read_s, "ReadTimeout"):
            async for run in exchange:
                if run:
                    return run
        self._is_read = True
        return b""


class SocketTransport:
    """Sends requests on the running event loop. It is created without one, and may be used on several in sequence."""

    def __init__(self, endpoint: SocketEndpoint, routes: Routes, config: Config | None = None) -> None:
        self._endpoint = endpoint
        self._routes = routes
        self._config: Config = {**_ONE_ATTEMPT, **(config or {})}
        self._socket: _SharedSocket | None = None

    async def send(self, request: TransportRequest) -> SocketResponse:
        """Send the request and return at the head of the response. Raises NoProvider, CallFailed, TransportTimeout."""
        step = step_of(request, self._routes.place(request.address), self._config)
        try:
            exchange = await self._open(step, request)
        except CannotConnect as error:
            if (refused := refusal(error)) is None:
                raise
            status, headers, body = refused
            return SocketResponse(status, headers, None, body)
        headers = headers_of(exchange.metadata, exchange.error)
        if exchange.error is not None and not exchange.is_from_provider:
            return SocketResponse(exchange.status, headers, None, as_sdk_error_body(await exchange.read()))
        return SocketResponse(exchange.status, headers, request.read_s, exchange)

    async def close(self) -> None:
        """Close the socket, which cancels the requests in flight."""
        socket, self._socket = self._socket, None
        if socket is not None and socket.loop is asyncio.get_running_loop():
            await socket.close()

    async def _open(self, step: Step, request: TransportRequest) -> Exchange:
        try:
            return await self._open_once(step, request)
        except _NotSent:
            return await self._open_once(step, request)  # on a new socket; the old one was lost while idle

    async def _open_once(self, step: Step, request: TransportRequest) -> Exchange:
        socket = self._socket_here()
        async with _within(request.connect_s, "ConnectTimeout"):
            bridge = await socket.bridge()
        exchange = bridge.exchange(step)
        try:
            async with _within(request.read_s, "ReadTimeout"):
                return await exchange.open()
        except ConnectionLost as error:
            await socket.discard(bridge)
            if exchange.id in error.events:
                raise
            raise _NotSent(str(error)) from error

    def _socket_here(self) -> "_SharedSocket":
        """Return the socket of the running loop: a socket of another loop cannot be used."""
        if self._socket is None or self._socket.loop is not asyncio.get_running_loop():
            self._socket = _SharedSocket(self._endpoint)
        return self._socket


class _NotSent(ConnectionLost):
    """The socket was lost before the request was sent."""


class _SharedSocket:
    """Holds at most one socket to the bridge, for one event loop."""

    def __init__(self, endpoint: SocketEndpoint) -> None:
        self.loop = asyncio.get_running_loop()
        self._endpoint = endpoint
        self._connect_lock = asyncio.Lock()
        self._bridge: Bridge | None = None

    async def bridge(self) -> Bridge:
        """Return the connection, opening it if there is none. Raises CannotConnect."""
        async with self._connect_lock:
            if self._bridge is None:
                self._bridge = await self._endpoint.dial()
            return self._bridge

    async def discard(self, bridge: Bridge) -> None:
        """Close a lost connection, so that the next request opens another."""
        if self._bridge is bridge:
            self._bridge = None
            await bridge.close()

    async def close(self) -> None:
        if self._bridge is not None:
            await self.discard(self._bridge)


@asynccontextmanager
async def _within(seconds: float | None, name: str) -> AsyncIterator[None]:
    """Raise TransportTimeout with this name after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TransportTimeout(name, f"nothing came for {seconds:g} s") from None
