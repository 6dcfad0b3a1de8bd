"""Variants of sending a request: each library, sync and async, directly or through a bridge."""

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
class LibraryVariant:
    """One of the two libraries, sync or async."""

    name: str
    is_async: bool

    @property
    def library(self) -> Any:
        return importlib.import_module(self.name)

    def transport(self, url: str, token: str | None = None, **options: Any) -> Any:
        module = importlib.import_module(f"bridge.transports.{self.name}")
        asynchronous, blocking = (getattr(module, name) for name in module.__all__)
        return (asynchronous if self.is_async else blocking)(url, token, **options)

    async def use(self, transport: Any, script: Callable[["Client"], Any], **options: Any) -> Any:
        """Run `script`, a coroutine function, with a client: in this loop, or in a thread where its calls may block."""
        if self.is_async:
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

    async def get(self, method: str, url: str, **options: Any) -> Any:
        """Send a request and read the response fully."""
        return await done(self.client.request(method, url, **options))

    async def send(self, method: str, url: str, **options: Any) -> Any:
        """Send a request; the body of the response is not read."""
        return await done(self.client.send(self.client.build_request(method, url, **options), stream=True))

    def runs(self, response: Any) -> AsyncIterator[bytes]:
        """Return the body's raw reads."""
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


every_variant = pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            LibraryVariant(name, is_async),
            id=f"{name}-{'async' if is_async else 'sync'}",
            marks=[pytest.mark.needs("pip-httpx2")] if name == "httpx2" else [],
        )
        for name in ("httpx", "httpx2")
        for is_async in (True, False)
    ],
)


class BridgeWithProvider:
    """A bridge whose provider `custom-own` is a server of the test."""

    def __init__(self, port: int, folder: Path, *, path: str = "/v1", more: str = "") -> None:
        self.base = f"http://127.0.0.1:{port}{path}"
        """The provider's base URL."""
        self.routes = {self.base: "custom-own"}
        self._port = 0
        self._serve = lambda: running(
            config_of(f'{more}\n[providers.custom-own]\nbase_url = "{self.base}"', folder, port=self._port)
        )
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        self.server = await self._stack.enter_async_context(self._serve())
        self.url = self.server.url + GATEWAY
        self._port = int(self.server.url.rpartition(":")[2])

    async def close(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """Stop the bridge and start a new one on the same port."""
        await self.close()
        await self.open()


@asynccontextmanager
async def bridge_with_provider(script: Script, folder: Path, **options: str) -> AsyncIterator[BridgeWithProvider]:
    """Run a bridge with a provider that runs a script."""
    async with Provider(script) as provider, opened(BridgeWithProvider(provider.port, folder, **options)) as at:
        yield at


@asynccontextmanager
async def opened(at: BridgeWithProvider) -> AsyncIterator[BridgeWithProvider]:
    await at.open()
    try:
        yield at
    finally:
        await at.close()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def dropping_bridge(messages: list[bytes]) -> AsyncIterator[str]:
    """Yield the URL of a server that reads one message per socket and aborts the connection."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        messages.append((await websocket.receive()).data)
        assert request.transport is not None
        request.transport.abort()
        return websocket

    app = web.Application()
    app.router.add_get(GATEWAY, serve)
    async with TestServer(app) as server:
        yield str(server.make_url(GATEWAY))


def recording_script(received: list[tuple[bytes, bytes]], *parts: bytes, hang_up: bool = False) -> Script:
    """Record every request's head and body, answer with `parts`, and keep the connection unless `hang_up`."""

    async def script(line: Line) -> None:
        while True:
            head = await line.head()
            received.append((head, await line.body(head)))
            await line.send(*parts)
            if hang_up:
                line.close()
                return

    return script
