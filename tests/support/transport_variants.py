"""The ways in which a test sends a request: each library, sync and async, direct or over a bridge."""

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.harness import config_of, running
from tests.support.socket_provider import Line, Provider, Script

GATEWAY = "/v1/account/gateway"


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two libraries, sync or async."""

    name: str
    has_loop: bool

    @property
    def library(self) -> Any:
        return importlib.import_module(self.name)

    def transport(self, url: str, token: str | None = None, **options: Any) -> Any:
        module = importlib.import_module(f"bridge.transports.{self.name}")
        asynchronous, blocking = (getattr(module, name) for name in module.__all__)
        return (asynchronous if self.has_loop else blocking)(url, token, **options)

    async def use(self, transport: Any, script: Callable[["Client"], Any], **options: Any) -> Any:
        """Run `script`, a coroutine function, with a client: in this loop, or in a thread where its calls may block."""
        if self.has_loop:
            async with self.library.AsyncClient(transport=transport, **options) as client:
                return await script(Client(client))

        def run() -> Any:
            with self.library.Client(transport=transport, **options) as client:
                return asyncio.run(script(Client(client)))

        return await asyncio.to_thread(run)


class Client:
    """A client of either kind with an async interface."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def get(self, method: str, url: str, **given: Any) -> Any:
        """An answer whose body is read."""
        return await done(self.client.request(method, url, **given))

    async def send(self, method: str, url: str, **given: Any) -> Any:
        """An answer whose body is not read."""
        return await done(self.client.send(self.client.build_request(method, url, **given), stream=True))

    def runs(self, response: Any) -> AsyncIterator[bytes]:
        """Its body, as it comes."""
        return each(response.aiter_raw() if hasattr(self.client, "aclose") else response.iter_raw())

    async def close(self, response: Any) -> None:
        await done(response.aclose() if hasattr(self.client, "aclose") else response.close())


async def done(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


async def each(items: Any) -> AsyncIterator[Any]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


every_way = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            Way(name, has_loop),
            id=f"{name}-{'async' if has_loop else 'sync'}",
            marks=[pytest.mark.needs("pip-httpx2")] if name == "httpx2" else [],
        )
        for name in ("httpx", "httpx2")
        for has_loop in (True, False)
    ],
)


class House:
    """A bridge whose provider `custom-own` is a server of the test."""

    def __init__(self, port: int, folder: Path, *, path: str = "/v1", more: str = "") -> None:
        self.base = f"http://127.0.0.1:{port}{path}"
        """The provider's base URL, and in a request a name of it."""
        self.routes = {self.base: "custom-own"}
        self._port = 0
        self._serve = lambda: running(
            config_of(f'{more}\n[providers.custom-own]\nbase_url = "{self.base}"', folder, port=self._port)
        )
        self._rooms = AsyncExitStack()

    async def open(self) -> None:
        self.server = await self._rooms.enter_async_context(self._serve())
        self.url = self.server.url + GATEWAY
        self._port = int(self.server.url.rpartition(":")[2])

    async def close(self) -> None:
        await self._rooms.aclose()

    async def restart(self) -> None:
        """The bridge goes, and comes again at the same place."""
        await self.close()
        await self.open()


@asynccontextmanager
async def house(script: Script, folder: Path, **how: str) -> AsyncIterator[House]:
    """Run a bridge before a provider that plays a script."""
    async with Provider(script) as provider, built(House(provider.port, folder, **how)) as at:
        yield at


@asynccontextmanager
async def built(at: House) -> AsyncIterator[House]:
    await at.open()
    try:
        yield at
    finally:
        await at.close()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


@asynccontextmanager
async def losing(messages: list[bytes]) -> AsyncIterator[str]:
    """Yield the URL of a server that takes one message per socket and disconnects."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        line = web.WebSocketResponse()
        await line.prepare(request)
        messages.append((await line.receive()).data)
        assert request.transport is not None
        request.transport.abort()
        return line

    app = web.Application()
    app.router.add_get(GATEWAY, serve)
    async with TestServer(app) as server:
        yield str(server.make_url(GATEWAY))


def playing(heard: list[tuple[bytes, bytes]], *parts: bytes, hang_up: bool = False) -> Script:
    """Record every request's head and body, answer with `parts`, and keep the connection unless `hang_up`."""

    async def script(line: Line) -> None:
        while True:
            head = await line.head()
            heard.append((head, await line.body(head)))
            await line.send(*parts)
            if hang_up:
                line.close()
                return

    return script
