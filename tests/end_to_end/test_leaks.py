"""Tasks, descriptors, provider streams and timers are released."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import WSMsgType

from bridge.errors import BridgeError
from bridge.relay.attempt import StepAttempt
from bridge.relay.context import RunningEvent
from bridge.relay.deadlines import Deadlines, Interrupt
from bridge.relay.runner import EventRunner
from bridge.relay.second_buckets import shared_buckets
from bridge.relay.stream_relay import StreamRelay
from bridge.server.server import Server
from tests.support.clock import turns, until
from tests.support.event_harness import DONE, FINISH, OVERLOADED, ROLE, content, step
from tests.support.harness import config_of, connected, is_last, running
from tests.support.provider_script import (
    JSON,
    RESET,
    SILENCE,
    ScriptedProvider,
    ScriptedResponse,
    answers,
    refuses,
    streams,
)
from tests.support.raw_client import UPGRADE, RawClient, connect_raw, frame, open_websocket
from tests.support.raw_http import HttpClient
from tests.support.sibling import HEAD, chunk
from tests.support.socket_provider import Line, Provider

COUNT = 100
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
CREATE = {"type": "universal.create", "request": {"eventId": "a", **step()}}


class Streaming:
    """A provider that streams until the bridge disconnects, or answers completely if the query is `whole`."""

    def __init__(self) -> None:
        self.open_streams = 0

    async def script(self, line: Line) -> None:
        while True:
            head = await line.head()
            body = await line.body(head)
            if b'"whole"' in body:
                await line.send(HEAD, chunk(ROLE))
                await turns()
                await line.send(chunk(content("a")), chunk(FINISH + DONE), b"0\r\n\r\n")
            else:
                await self._stream(line)

    async def _stream(self, line: Line) -> None:
        self.open_streams += 1
        try:
            await line.send(HEAD, chunk(content("a")))
            await line.gone()
        finally:
            self.open_streams -= 1
            line.close()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Server, Streaming]]:
    streaming = Streaming()
    async with Provider(streaming.script) as provider:
        text = f'[providers.openai]\nbase_url = "http://127.0.0.1:{provider.port}/v1"\n'
        async with running(config_of(text, folder)) as server:
            yield server, streaming


class Resources(NamedTuple):
    """Numbers of the resources that the process holds."""

    descriptors: int
    tasks: int
    timers: int
    """Pending timers, without the one of the buckets; the loop discards cancelled ones later."""
    deadlines: int
    """Events that wait in the buckets, which have one timer for all; it may outlast them."""

    @classmethod
    def now(cls) -> "Resources":
        loop = asyncio.get_running_loop()
        timers = loop._scheduled  # type: ignore[attr-defined]  # no public interface
        buckets = shared_buckets()
        return cls(
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
            sum(not timer.cancelled() and timer is not buckets._timer for timer in timers),
            len(buckets),
        )

    def is_no_more_than(self, before: "Resources") -> bool:
        return all(mine <= theirs for mine, theirs in zip(self, before, strict=True))


async def until_released(before: Resources) -> None:
    for _ in range(500):
        if (now := Resources.now()).is_no_more_than(before):
            return
        await turns()
    assert now == before


async def drops(client: RawClient) -> None:
    client.abort()


async def closes_the_websocket(client: RawClient) -> None:
    await client.send(frame(b"\x03\xe8", WSMsgType.CLOSE))


async def breaks_the_protocol(client: RawClient) -> None:
    await client.send(frame(b"x", 3))


async def stops_in_a_frame(client: RawClient) -> None:
    await client.send(frame(b"x" * 1000)[:500])
    client.abort()


@needs_proc
@pytest.mark.parametrize("leave", [drops, closes_the_websocket, breaks_the_protocol, stops_in_a_frame])
async def test_a_hundred_sockets_dropped_during_their_streams_release_everything(
    tmp_path: Path, leave: Callable[[RawClient], Awaitable[None]]
) -> None:
    async with serving(tmp_path) as (server, streaming):
        await _run_successful_event(server)
        before = Resources.now()
        async with AsyncExitStack() as opened:
            clients = [await opened.enter_async_context(open_websocket(server)) for _ in range(COUNT)]
            for client in clients:
                await client.send_json(CREATE)
            await until(lambda: streaming.open_streams == COUNT)
            for client in clients:
                await leave(client)
            await until(lambda: not streaming.open_streams)
        await until_released(before)
        await _run_successful_event(server)


async def drops_with_a_request_under_way(client: RawClient) -> None:
    await client.send(b"POST /v1/a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
    client.abort()


async def ends_its_half(client: RawClient) -> None:
    client.send_eof()


@needs_proc
@pytest.mark.parametrize("leave", [drops, ends_its_half, drops_with_a_request_under_way])
async def test_a_hundred_requests_dropped_during_their_streams_release_everything(
    tmp_path: Path, leave: Callable[[RawClient], Awaitable[None]]
) -> None:
    async with serving(tmp_path) as (server, streaming):
        await _run_successful_event(server)
        before = Resources.now()
        async with AsyncExitStack() as opened:
            clients = [await opened.enter_async_context(connect_raw(server)) for _ in range(COUNT)]
            for client in clients:
                await HttpClient(client).send_request()
            await until(lambda: streaming.open_streams == COUNT)
            for client in clients:
                await leave(client)
            await until(lambda: not streaming.open_streams)
        await until_released(before)
        await _run_successful_event(server)


@needs_proc
async def test_refused_handshakes_release_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        before = Resources.now()
        for path in ("/v1/a/b?compat=x", "/nowhere", "/v1/a/b"):
            for _ in range(COUNT // 5):
                async with connect_raw(server) as client:
                    await client.request(path, {**UPGRADE, "Origin": "https://evil.example"})
        await until_released(before)


@needs_proc
async def test_successful_events_share_one_connection_and_release_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _), connected(server) as client:
        await client.call({"eventId": "first", **step(), "query": "whole"})
        before = Resources.now()
        for each in range(COUNT):
            await client.call({"eventId": each, **step(), "query": "whole"})
            client.frames.clear()
        await until_released(before)


@pytest.mark.parametrize(
    ("changed", "play"),
    [
        ({}, refuses()),
        ({}, answers(status=503)),
        ({}, ScriptedResponse([b'{"a":', RESET], content_type=JSON)),
        ({}, ScriptedResponse([b"x" * 3_000_000], content_type=JSON)),
        ({}, streams(RESET)),
        ({}, streams(ROLE, content("a"), RESET)),
        ({}, streams(ROLE, content("a"))),
        ({}, streams(ROLE, OVERLOADED)),
        ({}, streams(b"data: " + b"x" * 3_000_000)),
        ({"config": {"requestTimeout": 20}}, streams(ROLE, SILENCE)),
        ({"config": {"idleTimeout": 20}}, streams(ROLE, content("a"), SILENCE)),
        ({"config": {"totalTimeout": 20}}, streams(ROLE, content("a"), SILENCE)),
        ({"config": {"cacheTtl": 60}}, refuses()),
        ({"config": {"cacheTtl": 60}}, streams(ROLE, content("a"), RESET)),
        ({"config": {"cacheTtl": 60, "idleTimeout": 20}}, streams(ROLE, content("a"), SILENCE)),
        ({"config": {"onBreak": "restart"}}, streams(ROLE, content("a"), RESET)),
        ({"provider": "nobody", "endpoint": ""}, None),
        ({"endpoint": "../x"}, None),
        ({"provider": 5}, None),
        ({"eventId": 1.5}, None),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
async def test_a_failed_event_is_freed_without_the_garbage_collector(
    tmp_path: Path, changed: dict[str, object], play: ScriptedResponse | None, steps: int
) -> None:
    """A traceback references its frames, and they may reference the error: such a cycle would delay the release."""
    text = "[server]\nmax_item_bytes = 1_000_000\nmax_buffered_bytes = 2_000_000\n"
    provider = ScriptedProvider(*([play] * steps * 2 if play else []))
    async with running(config_of(text, tmp_path), provider) as server, connected(server) as client:
        before = parts_of_events()
        gc.disable()
        try:
            for _ in range(2):
                await client.create([{"eventId": "a", **step(), **changed}] * steps)
                while not (is_last(await client.receive())):
                    pass
                await turns()
            client.frames.clear()
            assert parts_of_events() <= before
        finally:
            gc.enable()


@pytest.mark.parametrize("steps", [1, 2])
async def test_an_event_is_freed_without_the_garbage_collector(tmp_path: Path, steps: int) -> None:
    """A message may have 64 MiB, and its memory budget is released at the event's end."""
    request = [{"eventId": "a", **step(), "query": "whole"}] * steps
    async with serving(tmp_path) as (server, _), connected(server) as client:
        before = parts_of_events()
        gc.disable()
        try:
            for _ in range(3):
                await client.create(request)
                await client.until_last("a")
                client.frames.clear()
                await turns()
            assert parts_of_events() <= before
        finally:
            gc.enable()


def parts_of_events() -> int:
    parts = EventRunner | RunningEvent | StepAttempt | StreamRelay | Interrupt | Deadlines | BridgeError
    return sum(isinstance(each, parts) for each in gc.get_objects())


async def _run_successful_event(server: Server) -> None:
    async with connected(server) as client:
        assert (await client.call({"eventId": "a", **step(), "query": "whole"}))[-1]["type"] == "universal.done"
