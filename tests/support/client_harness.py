"""A client of a running bridge over a scripted provider, and of a stand-in for a bridge."""

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
from tests.support.provider_script import Plays, ScriptedProvider

QUERY = {"model": "small", "messages": []}


@asynccontextmanager
async def serving(*plays: Plays) -> AsyncIterator[tuple[str, ScriptedProvider, Server]]:
    """Yield the URL of a bridge, its provider, and its server."""
    provider = ScriptedProvider(*plays)
    async with running(load(None, {}, {"port": 0}), provider) as server:
        yield f"{server.url}/v1/me/default", provider, server


@asynccontextmanager
async def bridged(*plays: Plays) -> AsyncIterator[tuple[Bridge, ScriptedProvider]]:
    async with serving(*plays) as (url, provider, _), connect(url) as bridge:
        yield bridge, provider


Script = Callable[[web.WebSocketResponse], Awaitable[object]]


class Doorkeeper:
    """Lets sockets in, each with a script, or answers with an HTTP status; keeps count."""

    def __init__(self, *answers: Script | int, autoping: bool) -> None:
        self._left = list(answers)
        self._autoping = autoping
        self.knocks = 0
        self.knocked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.knocks += 1
        self.knocked.set()
        answer = self._left.pop(0)
        if isinstance(answer, int):
            return web.json_response({"message": "not now", "internalCode": 2009}, status=answer)
        socket = web.WebSocketResponse(autoping=self._autoping)
        await socket.prepare(request)
        await answer(socket)
        return socket

    async def knock(self) -> None:
        """Until somebody knocks."""
        await self.knocked.wait()
        self.knocked.clear()


@asynccontextmanager
async def door(
    *answers: Script | int, reconnect: Reconnect | bool, autoping: bool = True
) -> AsyncIterator[tuple[Bridge, Doorkeeper]]:
    keeper = Doorkeeper(*answers, autoping=autoping)
    app = web.Application()
    app.router.add_get("/", keeper.answer)
    async with TestServer(app) as server, connect(str(server.make_url("/")), reconnect=reconnect) as bridge:
        await keeper.knock()
        yield bridge, keeper


def heard(script: Script) -> Script:
    """Run the script after the first message."""

    async def play(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await script(socket)

    return play


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
