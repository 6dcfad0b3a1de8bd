"""What the transports for both libraries have in common, which is all but the names that they inherit."""

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
    """How a transport is made, beside the bridge's URL and the gateway's token."""

    provider: str
    """Whose everything is that neither `routes` nor the bridge's own table knows."""
    routes: Mapping[str, str]
    """Base URLs and the slugs that they stand for; they come before the bridge's own table."""
    config: Config
    """Settings for every request (README, "Settings")."""
    ssl: SSLContext | bool


class _Transport:
    library: ClassVar[ModuleType]

    def __init__(self, url: str, token: str | None = None, **options: Unpack[Options]) -> None:
        """Over the bridge at `url` (`wss://HOST/v1/ACCOUNT/GATEWAY`), which is dialled with the first request.

        Raises ValueError for a route that is no base URL.
        """
        where = SocketEndpoint(url, token, options.get("ssl", True))
        routes = Routes(url, options.get("routes"), options.get("provider"))
        self._encoder = SocketTransport(where, routes, options.get("config"))


class AsyncTransport(_Transport):
    """For the tasks of one event loop; on another it dials anew."""

    async def _ask(self, request: TransportRequest) -> SocketResponse:
        with faults_of(self.library):
            return await self._encoder.ask(request)

    async def aclose(self) -> None:
        await self._encoder.close()


class AsyncBody:
    library: ClassVar[ModuleType]

    def __init__(self, answer: SocketResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with faults_of(self.library):
                while run := await self._answer.read():
                    yield run
        finally:  # also for a `break`, a cancellation, an exception: the provider must not go on
            self._answer.close()

    async def aclose(self) -> None:
        self._answer.close()


class SyncTransport(_Transport):
    """For any number of threads. The socket lives in a thread of its own, until the transport is closed or dropped.

    The child of a fork has a thread and a socket of its own.
    """

    def __init__(self, url: str, token: str | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, token, **options)
        self._portals = PerProcess(BlockingPortal)
        weakref.finalize(self, _end, self._portals)

    def _ask(self, request: TransportRequest) -> tuple[SocketResponse, BlockingPortal]:
        with faults_of(self.library):
            portal = self._portals.get()
            return portal.call(self._encoder.ask(request)), portal

    def close(self) -> None:
        if (portal := self._portals.made) is not None:
            with suppress(ConnectionLost):  # closed before
                portal.call(self._encoder.close())
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
        finally:  # also for a `break` or an exception: the provider must not go on
            self.close()

    def close(self) -> None:
        self._portal.tell(self._answer.close)


def _end(portals: PerProcess[BlockingPortal]) -> None:
    with suppress(RuntimeError):  # the last reference went while that very thread collected garbage: none to wait for
        portals.close()
