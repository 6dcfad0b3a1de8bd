"""A client of a running bridge over a scripted provider, and one of something that is no bridge of ours."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.client import Bridge, connect
from bridge.config import load
from bridge.server import Server
from tests.harness import running
from tests.provider_script import Plays, ScriptedProvider

QUERY = {"model": "small", "messages": []}


@asynccontextmanager
async def serving(*plays: Plays) -> AsyncIterator[tuple[str, ScriptedProvider, Server]]:
    """The URL of a bridge, the provider behind it, and its server."""
    provider = ScriptedProvider(*plays)
    async with running(load(None, {}, {"port": 0}), provider) as server:
        yield f"{server.url}/v1/me/default", provider, server


@asynccontextmanager
async def bridged(*plays: Plays) -> AsyncIterator[tuple[Bridge, ScriptedProvider]]:
    async with serving(*plays) as (url, provider, _), connect(url) as bridge:
        yield bridge, provider


Script = Callable[[web.WebSocketResponse], Awaitable[object]]


@asynccontextmanager
async def scripted(*scripts: Script, **how: Any) -> AsyncIterator[Bridge]:
    """A client of something that plays a script per socket, in their order, once the first message has come."""
    left = list(scripts)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        script = left.pop(0)
        await socket.receive()
        await script(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, connect(str(server.make_url("/")), **how) as bridge:
        yield bridge


async def until_closed(socket: web.WebSocketResponse) -> list[Any]:
    """What comes before the client closes the socket."""
    return [message.json() async for message in socket]


async def crash(socket: web.WebSocketResponse) -> None:
    """As a process that is killed."""
    transport = socket._req.transport if socket._req else None
    assert transport is not None
    transport.abort()
