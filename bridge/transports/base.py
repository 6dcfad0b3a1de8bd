"""Base classes of the transports for httpx and httpx2, which differ only in their base classes and exceptions."""

import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from ssl import SSLContext
from types import ModuleType
from typing import ClassVar, TypedDict, Unpack

from bridge.client import Config, ConnectionLost
from bridge.client.background_loop import BlockingPortal
from bridge.client.forks import PerProcess
from bridge.transports.requests import TransportRequest
from bridge.transports.responses import faults_of
from bridge.transports.routes import Routes
from bridge.transports.socket import SocketEndpoint, SocketResponse, SocketTransport


class Options(TypedDict, total=False):
    """Options of a transport besides the bridge's URL and the gateway's token."""

    provider: str
    """Provider of all URLs that neither `routes` nor the bridge's own table contains."""
    routes: Mapping[str, str]
    """Slugs of providers by base URL; they take precedence over the bridge's own table."""
    config: Config
    """Settings for every request (bridge/docs/configuration.md)."""
    ssl: SSLContext | bool


class _Transport:
    library: ClassVar[ModuleType]

    def __init__(self, url: str, token: str | None = None, **options: Unpack[Options]) -> None:
        """Use the bridge at `url` (`wss://HOST/v1/ACCOUNT/GATEWAY`). The first request opens the socket.

        Raises ValueError if a key of `routes` is not a base URL.
        """
        endpoint = SocketEndpoint(url, token, options.get("ssl", True))
        routes = Routes(url, options.get("routes"), options.get("provider"))
        self._socket = SocketTransport(endpoint, routes, options.get("config"))


class AsyncTransport(_Transport):
    """Serves the tasks of one event loop; on another loop it opens a new socket."""

    async def _send(self, request: TransportRequest) -> SocketResponse:
        with faults_of(self.library):
            return await self._socket.send(request)

    async def aclose(self) -> None:
        await self._socket.close()


class AsyncBody:
    library: ClassVar[ModuleType]

    def __init__(self, answer: SocketResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with faults_of(self.library):
                while run := await self._answer.read():
                    yield run
        finally:  # a `break`, cancellation or exception must stop the provider too
            self._answer.close()

    async def aclose(self) -> None:
        self._answer.close()


class SyncTransport(_Transport):
    """Serves any number of threads. A background thread owns the socket until the transport is closed or collected.

    The child of a fork uses its own thread and socket.
    """

    def __init__(self, url: str, token: str | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, token, **options)
        self._portals = PerProcess(BlockingPortal)
        weakref.finalize(self, _end, self._portals)

    def _send(self, request: TransportRequest) -> tuple[SocketResponse, BlockingPortal]:
        with faults_of(self.library):
            portal = self._portals.get()
            return portal.call(self._socket.send(request)), portal

    def close(self) -> None:
        if (portal := self._portals.made) is not None:
            with suppress(ConnectionLost):  # already closed
                portal.call(self._socket.close())
        self._portals.close()


class SyncBody:
    library: ClassVar[ModuleType]

    def __init__(self, answer: SocketResponse, portal: BlockingPortal) -> None:
        self._answer = answer
        self._portal = portal

    def __iter__(self) -> Iterator[bytes]:
        try:
            with faults_of(self.library):
                while run := self._portal.call(self._answer.read()):
                    yield run
        finally:  # a `break` or an exception must stop the provider too
            self.close()

    def close(self) -> None:
        self._portal.call_soon(self._answer.close)


def _end(portals: PerProcess[BlockingPortal]) -> None:
    with suppress(RuntimeError):  # the portal's own thread collected the transport and cannot join itself
        portals.close()
