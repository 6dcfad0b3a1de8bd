"""Connect a client to a bridge with a scripted provider, or to a fake bridge."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.client import Bridge, Reconnect, connect
from bridge.config import load
from bridge.server.server import Server
from tests.support.harness import running
from tests.support.provider_script import ScriptedProvider, ScriptedResponse

QUERY = {"model": "small", "messages": []}


@asynccontextmanager
async def serving(*responses: ScriptedResponse) -> AsyncIterator[tuple[str, ScriptedProvider, Server]]:
    """Yield the URL of a bridge, its provider, and its server."""
    provider = ScriptedProvider(*responses)
    async with running(load(None, {}, {"port": 0}), provider) as server:
        yield f"{server.url}/v1/me/default", provider, server


@asynccontextmanager
async def bridged(*responses: ScriptedResponse) -> AsyncIterator[tuple[Bridge, ScriptedProvider]]:
    async with serving(*responses) as (url, provider, _), connect(url) as bridge:
        yield bridge, provider


Script = Callable[[web.WebSocketResponse], Awaitable[object]]


class FakeBridge:
    """Answers each handshake with a script for the socket, or with an HTTP error status."""

    def __init__(self, *answers: Script | int, autoping: bool) -> None:
        self._answers = list(answers)
        self._autoping = autoping
        self.handshakes = 0
        self.handshake_received = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.handshake_received.set()
        answer = self._answers.pop(0)
        if isinstance(answer, int):
            return web.json_response({"message": "not now", "internalCode": 2009}, status=answer)
        socket = web.WebSocketResponse(autoping=self._autoping)
        await socket.prepare(request)
        await answer(socket)
        return socket

    async def wait_handshake(self) -> None:
        """Wait for the next handshake."""
        await self.handshake_received.wait()
        self.handshake_received.clear()


@asynccontextmanager
async def fake_bridge(
    *answers: Script | int, reconnect: Reconnect | bool, autoping: bool = True
) -> AsyncIterator[tuple[Bridge, FakeBridge]]:
    fake = FakeBridge(*answers, autoping=autoping)
    app = web.Application()
    app.router.add_get("/", fake.answer)
    async with TestServer(app) as server, connect(str(server.make_url("/")), reconnect=reconnect) as bridge:
        await fake.wait_handshake()
        yield bridge, fake


def after_message(script: Script) -> Script:
    """Run the script after the first message."""

    async def run(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await script(socket)

    return run


def frame(kind: str, event_id: str, **more: object) -> dict[str, object]:
    return {"type": f"universal.{kind}", "metadata": {"eventId": event_id}, **more}


async def until_closed(socket: web.WebSocketResponse) -> list[Any]:
    """Return the messages before the client closes the socket."""
    return [message.json() async for message in socket]


async def crash(socket: web.WebSocketResponse) -> None:
    """Abort the connection like a killed process."""
    transport = socket._req.transport if socket._req else None
    assert transport is not None
    transport.abort()
