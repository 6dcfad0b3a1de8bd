"""Run a bridge with every service, and collect its reports of events: frames, log rows, spans and metrics."""

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
from tests.support.otlp_receiver import ReceivedSpan, Receiver, receiving
from tests.support.provider_script import ScriptedProvider, ScriptedResponse
from tests.support.raw_http import HttpClient, HttpResult, connect_http

Row = dict[str, Any]

GATEWAY = "/v1/account/gateway"
SERVER = '[server]\nlog_path = "log.db"\n'


@dataclass(frozen=True)
class ClientEnd:
    """The end of an event as its client sees it; over HTTP from headers and body."""

    log_id: str
    status: int
    step: int
    is_cached: bool
    metadata: Frame = field(default_factory=dict)
    """A member of the last frame; empty over HTTP, like the next two."""
    error: Frame = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    http_result: HttpResult | None = None
    """Set only over HTTP."""

    @property
    def code(self) -> int | None:
        """Return the code of the bridge's error; on a socket that of any error."""
        if self.http_result is None:
            return self.error.get("code")
        is_bridge_error = self.status >= 400 and b'"AiGatewayError"' in self.http_result.body
        return self.http_result.code if is_bridge_error else None


def by_frames(frames: list[Frame]) -> ClientEnd:
    """Return the end of an event from all of its frames."""
    last = frames[-1]
    metadata = last["metadata"]
    is_cached = metadata["cacheStatus"] == "HIT"
    return ClientEnd(
        metadata["logId"],
        metadata["status"],
        int(metadata["step"]),
        is_cached,
        metadata,
        last.get("error", {}),
        frames,
    )


def by_http_result(result: HttpResult) -> ClientEnd:
    fields = {name: value for name, value in result.headers.items() if name.startswith("cf-aig-")}
    is_cached = fields["cf-aig-cache-status"] == "HIT"
    return ClientEnd(fields["cf-aig-log-id"], result.status, int(fields["cf-aig-step"]), is_cached, http_result=result)


class StartedEvent(Protocol):
    """A running event whose client waits for the answer."""

    async def end(self) -> ClientEnd:
        """Wait for the end of the event."""

    async def cancel(self) -> None:
        """Cancel the event."""


class OnSocket:
    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    async def end(self) -> ClientEnd:
        return by_frames(await self._client.until_last(self._name))

    async def cancel(self) -> None:
        await self._client.cancel(self._name)


class OverHttp:
    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def end(self) -> ClientEnd:
        return by_http_result(await self._client.read_response())

    async def cancel(self) -> None:
        self._client.raw.abort()


class FullStack:
    """Runs the bridge. `rows`, `spans` and `samples` are set after its end; `samples` right before it."""

    def __init__(self, server: Server, provider: ScriptedProvider, receiver: Receiver, folder: Path, more: str) -> None:
        self.server, self.provider = server, provider
        self._receiver, self._folder, self._more = receiver, folder, more
        self._events = 0
        self.rows: dict[str, Row] = {}
        """The rows by log id, in the order in which the events began."""
        self.samples: Samples = {}

    def name(self) -> str:
        """Return a new event id."""
        self._events += 1
        return f"event {self._events}"

    async def on_socket(self, request: object = None, path: str = GATEWAY, **handshake: str) -> ClientEnd:
        """Run one event on its own socket; underscores in header names stand for hyphens."""
        async with connected(self.server, path, headers=_named(handshake)) as client:
            return await self.on(client, request)

    async def on(self, client: Client, request: object = None) -> ClientEnd:
        name = self.name()
        await client.create(request or step(), eventId=name)
        return by_frames(await client.until_last(name))

    async def over_http(self, request: object = None, path: str = GATEWAY, **headers: str) -> ClientEnd:
        """Run one event by HTTP: steps at the gateway's path, or a body in a provider's format."""
        async with connect_http(self.server) as client:
            return by_http_result(await client("POST", path, orjson.dumps(request or step()), _named(headers)))

    @asynccontextmanager
    async def started(self, transport: str, request: object = None, **headers: str) -> AsyncIterator[StartedEvent]:
        """Run an event on a `socket` or over `http`."""
        if transport == "http":
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
        """Return the number of running events."""
        return len(self.server._app.state.runtime.running)

    async def wait_for_reads(self, call: int, reads: int) -> None:
        """Wait until `reads` reads of the provider's response to that call were relayed."""
        await until(lambda: len(self.provider.requests) > call and self.provider.requests[call].reads >= reads)
        await turns(100)

    @property
    def spans(self) -> dict[str, ReceivedSpan]:
        """Return the spans of events by log id."""
        return {str(seen.attributes["bridge.log_id"]): seen for seen in self._receiver.events}

    def attempts(self) -> list[ReceivedSpan]:
        """Return the spans of attempts."""
        return self._receiver.attempts

    def attempts_of(self, span: ReceivedSpan) -> list[ReceivedSpan]:
        """Return the children of a span in order."""
        found = [seen for seen in self.attempts() if seen.parent_id == span.span_id]
        return sorted(found, key=lambda seen: int(seen.attributes["bridge.attempt"]))

    def reload(self, **gateways: str) -> None:
        """Replace the gateways."""
        self.server.reload(config_of(config_for(self._receiver, gateways, self._more), self._folder))

    async def scrape(self) -> None:
        """Read the metrics, unless the bridge no longer listens."""
        if not self.server.connections.is_draining:
            self.samples = await scraped(self.server)
            return
        meter = self.server._app.state.runtime.services.meter
        assert meter is not None
        self.samples = samples_in((await meter.text(""))[0].decode())

    def read_rows(self) -> None:
        with closing(sqlite3.connect(self._folder / "log.db")) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM requests ORDER BY id")
            self.rows = {row["id"]: dict(row) for row in rows}


@asynccontextmanager
async def run_full_stack(
    folder: Path, gateways: Mapping[str, str], *responses: ScriptedResponse, server: str = ""
) -> AsyncIterator[FullStack]:
    """Run a bridge. `gateways` maps names to the bodies of their tables; `server` extends the server table."""
    provider = ScriptedProvider(*responses)
    async with (
        receiving() as receiver,
        running(config_of(config_for(receiver, gateways, server), folder), provider) as bridge,
    ):
        stack = FullStack(bridge, provider, receiver, folder, server)
        yield stack
        await stack.scrape()
    stack.read_rows()


def config_for(receiver: Receiver, gateways: Mapping[str, str], server: str = "") -> str:
    otel = f'otel = [{{ url = "{receiver.url}" }}]'
    tables = (f"[gateways.{name}]\n{otel}\n{body}\n" for name, body in gateways.items())
    return f"{SERVER}{server}\n{''.join(tables)}"


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
