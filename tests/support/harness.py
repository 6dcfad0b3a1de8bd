"""Run a bridge in a test, and connect a client that parses its frames."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson

from bridge.config import Configuration, load
from bridge.relay.interfaces import Services
from bridge.server.server import Server
from bridge.services.build import build_services
from bridge.upstream.http import Upstream
from bridge.upstream.transport import HttpTransport

Frame = dict[str, Any]


def config_of(text: str, folder: Path, **overrides: object) -> Configuration:
    """Return the configuration of TOML text, with a free port."""
    path = folder / "bridge.toml"
    path.write_text(text)
    return load(path, {}, {"port": 0, **overrides})


@asynccontextmanager
async def running(
    config: Configuration, transport: httpx.AsyncBaseTransport | None = None, shared: Path | None = None
) -> AsyncIterator[Server]:
    """Run a bridge on a free port of loopback, with the real transport or `transport`.

    `shared` is a folder that it shares with other bridges, as workers do.
    """
    async with (
        build_services(config, shared) as services,
        running_without_services(config, transport, services) as server,
    ):
        yield server


@asynccontextmanager
async def running_without_services(
    config: Configuration, transport: httpx.AsyncBaseTransport | None = None, services: Services | None = None
) -> AsyncIterator[Server]:
    """Run a bridge with only the services that are passed."""
    server = Server(config, Upstream(transport or HttpTransport()), services)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Client:
    """One WebSocket to a bridge; keeps received frames in their order."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[Frame] = []

    async def create(self, request: object, **fields: object) -> None:
        await self.send({"type": "universal.create", "request": request, **fields})

    async def cancel(self, event_id: str | int) -> None:
        await self.send({"type": "universal.cancel", "eventId": event_id})

    async def send(self, message: object) -> None:
        await self.socket.send_str(orjson.dumps(message).decode())

    async def receive(self) -> Frame:
        """Return the next frame; fail if the socket closes."""
        message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, f"expected a frame, got {message!r}"
        frame: Frame = orjson.loads(message.data)
        self.frames.append(frame)
        return frame

    async def until_last(self, event_id: str | int) -> list[Frame]:
        """Return all frames of one event up to its last, including those received before."""
        while not any(is_last(frame) and frame["metadata"].get("eventId") == event_id for frame in self.frames):
            await self.receive()
        return [frame for frame in self.frames if frame["metadata"].get("eventId") == event_id]

    async def call(self, request: Mapping[str, object]) -> list[Frame]:
        """Send one event and return its frames; `request` must have an eventId."""
        await self.create(request)
        return await self.until_last(request["eventId"])  # type: ignore[arg-type]  # a str or an int

    async def close_code(self) -> int | None:
        """Read until the socket closes, and return its close code."""
        while (message := await self.socket.receive()).type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
            self.frames.append(orjson.loads(message.data))
        return self.socket.close_code


def is_last(frame: Frame) -> bool:
    """Return True for the last frame of an event."""
    return frame["type"] in {"universal.done", "universal.error"} or (
        frame["type"] == "universal.created" and "response" in frame
    )


@asynccontextmanager
async def connected(server: Server, path: str = "/v1/account/gateway", **handshake: Any) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.url + path, max_msg_size=0, **handshake) as socket,
    ):
        yield Client(socket)
