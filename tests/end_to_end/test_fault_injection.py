"""Injected faults, as clients of the replay server and of a replaying bridge see them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bridge.tapes.fault_injection import InjectedFault, parse_fault
from bridge.tapes.library import Library
from bridge.tapes.transport import Tape, TapeHead, TapeTransport
from tests.support.clock import advance, turns
from tests.support.event_harness import DONE, FINISH, content
from tests.support.harness import Client, Frame, config_of, connected, running
from tests.support.tapes import folder_of, replaying, tape

URL = "https://api.openai.com/v1/chat/completions"
BODY = b'{"model":"small","stream":true}'
SSE = TapeHead(status=200, headers={"content-type": "text/event-stream"}, ms=100)
STREAM = tape(content("one"), content("two"), content("three"), FINISH + DONE, url=URL, body=BODY, head=SSE)


def faults_of(*texts: str) -> list[InjectedFault]:
    return [parse_fault(text) for text in texts]


# The replay server


class Provider:
    """A plain HTTP client of the replay server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = f"{url}/v1/chat/completions"
        self._session = session

    async def outcome(self, fault: str | None = None) -> str:
        """Send a request; return its status, its number of chunks and its ending."""
        headers = {} if fault is None else {"x-bridge-fault": fault}
        try:
            async with self._session.post(self.url, data=BODY, headers=headers) as response:
                return f"{response.status}, {await _outcome(response)}"
        except aiohttp.ClientOSError:
            return "reset"


async def _outcome(response: aiohttp.ClientResponse) -> str:
    got = list[bytes]()
    try:
        async for data, _ in response.content.iter_chunks():
            got += [data] if data else []
    except aiohttp.ClientError:
        return f"{len(got)} chunks, reset"
    return f"{len(got)} chunks"


@asynccontextmanager
async def provider(folder: Path, *faults: str) -> AsyncIterator[Provider]:
    library = Library(folder_of(folder, STREAM), pace="instant", faults=faults_of(*faults))
    async with replaying(library) as server, aiohttp.ClientSession() as session:
        yield Provider(server.url, session)


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("reset@head", ["reset", "reset"]),
        ("reset@chunk:0", ["200, 0 chunks, reset"] * 2),
        ("reset@chunk:2", ["200, 2 chunks, reset"] * 2),
        ("reset@chunk:2:first:1", ["200, 2 chunks, reset", "200, 4 chunks"]),
        ("reset@end", ["200, 4 chunks, reset"] * 2),
        ("reset@chunk:7", ["200, 4 chunks"] * 2),
        ("status:503:first:2", ["503, 1 chunks", "503, 1 chunks", "200, 4 chunks"]),
    ],
)
@pytest.mark.parametrize("by", ["option", "header"])
async def test_a_client_of_the_replay_server_gets_the_injected_fault(
    tmp_path: Path, by: str, fault: str, outcomes: list[str]
) -> None:
    own = fault if by == "header" else None
    async with provider(tmp_path, *([] if own else [fault])) as server:
        assert [await server.outcome(own) for _ in outcomes] == outcomes


@asynccontextmanager
async def after_one_chunk(folder: Path, fault: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        provider(folder, fault) as server,
        aiohttp.ClientSession() as session,
        session.post(server.url, data=BODY) as response,
    ):
        assert await response.content.readany() == content("one")
        yield response


async def test_a_stall_of_the_replay_server_ends_after_its_duration(tmp_path: Path) -> None:
    async with after_one_chunk(tmp_path, "stall@chunk:1:20s") as response:
        rest = asyncio.create_task(response.content.read())
        advance(19)
        await turns(50)
        assert not rest.done()
        advance(1)
        assert (await rest).endswith(DONE)


async def test_a_stall_without_a_duration_does_not_end(tmp_path: Path) -> None:
    async with after_one_chunk(tmp_path, "stall@chunk:1") as response:
        rest = asyncio.create_task(response.content.read())
        advance(200)
        await turns(50)
        assert not rest.done()
        rest.cancel()


# A replaying bridge


@asynccontextmanager
async def bridge(folder: Path, *faults: str, tapes: tuple[Tape, ...] = (STREAM,)) -> AsyncIterator[Client]:
    transport = TapeTransport(folder_of(folder, *tapes), pace="instant", faults=faults_of(*faults))
    async with running(config_of("", folder), transport) as server, connected(server) as client:
        yield client


def step(fault: str | None = None, **config: object) -> Frame:
    headers = {"authorization": "Bearer none"} | ({} if fault is None else {"x-bridge-fault": fault})
    query = {"model": "small", "stream": True}
    return {"provider": "openai", "endpoint": "chat/completions", "headers": headers, "query": query, "config": config}


def summary(frames: list[Frame]) -> str:
    """Return the number of chunks of an event and its ending."""
    last = frames[-1]
    end = last["error"]["code"] if "error" in last else "whole"
    return f"{last['metadata']['chunks']} chunks, {end}"


@pytest.mark.parametrize(
    ("fault", "outcomes"),
    [
        ("reset@head", ["0 chunks, 9012"] * 2),
        ("reset@chunk:2", ["2 chunks, 9016"] * 2),
        ("reset@chunk:2:first:1", ["2 chunks, 9016", "4 chunks, whole"]),
        ("status:503:first:2", ["0 chunks, 503", "0 chunks, 503", "4 chunks, whole"]),
    ],
)
@pytest.mark.parametrize("by", ["option", "header"])
async def test_an_event_of_the_bridge_gets_the_injected_fault(
    tmp_path: Path, by: str, fault: str, outcomes: list[str]
) -> None:
    own = fault if by == "header" else None
    async with bridge(tmp_path, *([] if own else [fault])) as client:
        summaries = [summary(await client.call({"eventId": number, **step(own)})) for number in range(len(outcomes))]
    assert summaries == outcomes


async def test_a_stalled_stream_ends_with_9014(tmp_path: Path) -> None:
    async with bridge(tmp_path, "stall@chunk:1") as client:
        await client.create({"eventId": "one", **step(idleTimeout=5000)})
        while (await client.receive())["type"] != "universal.stream":
            pass
        advance(5)
        assert summary(await client.until_last("one")) == "1 chunks, 9014"


async def test_a_fault_of_the_first_request_is_retried(tmp_path: Path) -> None:
    async with bridge(tmp_path) as client:
        frames = await client.call({"eventId": "one", **step("status:503:first:1", maxAttempts=2, retryDelay=0)})
    assert summary(frames) == "4 chunks, whole"
    assert [attempt.get("status") for attempt in frames[-1]["metadata"]["attempts"]] == [503, 200]


async def test_a_step_with_a_fault_falls_back_to_the_next_step(tmp_path: Path) -> None:
    async with bridge(tmp_path) as client:
        frames = await client.call({"eventId": "one", "steps": [step("reset@chunk:0"), step()]})
    assert (summary(frames), frames[-1]["metadata"]["step"]) == ("4 chunks, whole", "1")


async def test_an_invalid_fault_header_ends_its_event_with_9007_without_a_retry(tmp_path: Path) -> None:
    async with bridge(tmp_path) as client:
        frames = await client.call({"eventId": "one", **step("reset@chunk", maxAttempts=3)})
    assert summary(frames) == "0 chunks, 9007"
    assert "invalid fault 'reset@chunk': expected reset@head" in frames[-1]["error"]["message"]


async def test_a_slow_fault_delays_the_answer(tmp_path: Path) -> None:
    """The tape ends at 600 ms."""
    async with bridge(tmp_path) as client:
        await client.create({"eventId": "one", **step("slow:10x")})
        for _ in range(6):
            await turns(50)
            assert not any(frame["type"] == "universal.done" for frame in client.frames)
            advance(1)
        assert (await client.until_last("one"))[-1]["metadata"]["durationMs"] >= 5000
