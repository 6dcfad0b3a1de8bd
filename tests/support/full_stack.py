"""A bridge with everything on, and whatever tells of its events: frames and answers, rows, spans and metrics."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from bridge.server.server import Server
from tests.services.metrics.test_metrics import Samples, samples_in, scraped
from tests.support.clock import turns, until
from tests.support.event_harness import step
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.otlp_receiver import Receiver, Seen, receiving
from tests.support.provider_script import Plays, ScriptedProvider
from tests.support.raw_http import HttpClient, HttpResult, connect_http

Row = dict[str, Any]

GATEWAY = "/v1/account/gateway"
SERVER = '[server]\nlog_path = "log.db"\n'


@dataclass(frozen=True)
class Told:
    """What the client of one event was told at its end; over HTTP by headers and body."""

    log_id: str
    status: int
    step: int
    is_cached: bool
    metadata: Frame = field(default_factory=dict)
    """The last frame's; empty over HTTP, like the next two."""
    error: Frame = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    heard: HttpResult | None = None
    """Over HTTP."""

    @property
    def code(self) -> int | None:
        """Of the bridge's own error, or of any on a socket."""
        if self.heard is None:
            return self.error.get("code")
        is_own = self.status >= 400 and b'"AiGatewayError"' in self.heard.body
        return self.heard.code if is_own else None


def by_frames(frames: list[Frame]) -> Told:
    """All of one event."""
    last = frames[-1]
    metadata = last["metadata"]
    is_cached = metadata["cacheStatus"] == "HIT"
    return Told(
        metadata["logId"],
        metadata["status"],
        int(metadata["step"]),
        is_cached,
        metadata,
        last.get("error", {}),
        frames,
    )


def by_answer(heard: HttpResult) -> Told:
    own = {name: value for name, value in heard.headers.items() if name.startswith("cf-aig-")}
    is_cached = own["cf-aig-cache-status"] == "HIT"
    return Told(own["cf-aig-log-id"], heard.status, int(own["cf-aig-step"]), is_cached, heard=heard)


class Begun(Protocol):
    """An event whose client has asked and waits."""

    async def end(self) -> Told:
        """Wait for all of it."""

    async def leave(self) -> None:
        """Want no more of it."""


class OnSocket:
    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    async def end(self) -> Told:
        return by_frames(await self._client.until_last(self._name))

    async def leave(self) -> None:
        await self._client.cancel(self._name)


class OverHttp:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def end(self) -> Told:
        return by_answer(await self._client.read_response())

    async def leave(self) -> None:
        self._client.raw.abort()


class Witness:
    """`rows`, `spans` and `samples` are there once the bridge has ended; `samples` are of just before."""

    def __init__(self, server: Server, provider: ScriptedProvider, receiver: Receiver, folder: Path, more: str) -> None:
        self.server, self.provider = server, provider
        self._receiver, self._folder, self._more = receiver, folder, more
        self._events = 0
        self.rows: dict[str, Row] = {}
        """By the event's log id; in the order in which they began."""
        self.samples: Samples = {}

    def name(self) -> str:
        """Of another event."""
        self._events += 1
        return f"event {self._events}"

    async def on_socket(self, request: object = None, path: str = GATEWAY, **handshake: str) -> Told:
        """One event on a socket of its own; underscores in a header's name stand for hyphens."""
        async with connected(self.server, path, headers=_named(handshake)) as client:
            return await self.on(client, request)

    async def on(self, client: Client, request: object = None) -> Told:
        name = self.name()
        await client.create(request or step(), eventId=name)
        return by_frames(await client.until_last(name))

    async def over_http(self, request: object = None, path: str = GATEWAY, **headers: str) -> Told:
        """One event by a request of its own: steps at the gateway's path, else a provider's own body."""
        async with connect_http(self.server) as client:
            return by_answer(await client("POST", path, orjson.dumps(request or step()), _named(headers)))

    @asynccontextmanager
    async def begun(self, way: str, request: object = None, **headers: str) -> AsyncIterator[Begun]:
        """An event on a `socket` or over `http`."""
        if way == "http":
            async with connect_http(self.server) as client:
                await client.send_request("POST", GATEWAY, orjson.dumps(request or step()), _named(headers))
                yield OverHttp(client)
            return
        async with connected(self.server, headers=_named(headers)) as client:
            name = self.name()
            await client.create(request or step(), eventId=name)
            yield OnSocket(client, name)

    @property
    def running(self) -> int:
        """How many events have begun and not ended."""
        return len(self.server._app._runtime.running)

    async def reading(self, call: int, reads: int) -> None:
        """Until so much was read of a provider's answer to that call, and passed on."""
        await until(lambda: len(self.provider.played) > call and self.provider.played[call].reads >= reads)
        await turns(100)

    @property
    def spans(self) -> dict[str, Seen]:
        """Of whole events, by log id."""
        return {str(seen.attributes["bridge.log_id"]): seen for seen in self._receiver.events}

    def attempts(self) -> list[Seen]:
        """The spans of attempts."""
        return self._receiver.attempts

    def attempts_of(self, span: Seen) -> list[Seen]:
        """Its children, in their order."""
        found = [seen for seen in self.attempts() if seen.parent_id == span.span_id]
        return sorted(found, key=lambda seen: int(seen.attributes["bridge.attempt"]))

    def reload(self, **gateways: str) -> None:
        """Have these in place of those that there are."""
        self.server.reload(config_of(config_for(self._receiver, gateways, self._more), self._folder))

    async def scrape(self) -> None:
        """Over a socket, unless nobody listens there any more."""
        if not self.server.connections.is_draining:
            self.samples = await scraped(self.server)
            return
        meter = self.server._app._runtime.services.meter
        assert meter is not None
        self.samples = samples_in((await meter.text(""))[0].decode())

    def read_rows(self) -> None:
        with closing(sqlite3.connect(self._folder / "log.db")) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM requests ORDER BY id")
            self.rows = {row["id"]: dict(row) for row in rows}


@asynccontextmanager
async def witnessing(
    folder: Path, gateways: Mapping[str, str], *plays: Plays, server: str = ""
) -> AsyncIterator[Witness]:
    """`gateways` are their tables' bodies by name, `server` more of that table."""
    provider = ScriptedProvider(*plays)
    async with (
        receiving() as receiver,
        running(config_of(config_for(receiver, gateways, server), folder), provider) as bridge,
    ):
        listener = Witness(bridge, provider, receiver, folder, server)
        yield listener
        await listener.scrape()
    listener.read_rows()


def config_for(receiver: Receiver, gateways: Mapping[str, str], server: str = "") -> str:
    otel = f'otel = [{{ url = "{receiver.url}" }}]'
    tables = (f"[gateways.{name}]\n{otel}\n{body}\n" for name, body in gateways.items())
    return f"{SERVER}{server}\n{''.join(tables)}"


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
