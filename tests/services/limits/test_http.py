"""The same limits, as a client meets them over plain HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bridge.server.http.writer import MAX_BUFFERED_BYTES
from bridge.services.limits.reserving import WAIT_S
from tests.services.limits.test_limiter import BY_PROVIDER, OPEN, RATE, budget, costing, waiting
from tests.support.clock import advance, turns, until
from tests.support.event_harness import step
from tests.support.harness import config_of, running
from tests.support.provider_script import SILENCE, ScriptedProvider, ScriptedResponse, answers
from tests.support.wall_clock import Wall

CHAIN = "/v1/account/gateway"
DIRECT = CHAIN + "/openai/chat/completions"
BODIES: dict[str, object] = {CHAIN: [step()], DIRECT: {"model": "small"}}

both = pytest.mark.parametrize("path", [CHAIN, DIRECT], ids=["universal", "provider"])


class LimitedBridge:
    def __init__(self, url: str, provider: ScriptedProvider, session: aiohttp.ClientSession) -> None:
        self.provider = provider
        self._url, self._session = url, session

    async def post(self, path: str) -> tuple[int, str | None, dict[str, object]]:
        """Status, Retry-After and body."""
        async with self._session.post(self._url + path, json=BODIES[path]) as response:
            return response.status, response.headers.get("Retry-After"), await response.json()

    def begin(self, path: str) -> "asyncio.Task[tuple[int, str | None, dict[str, object]]]":
        return asyncio.create_task(self.post(path))


@asynccontextmanager
async def serving(text: str, folder: Path, *plays: ScriptedResponse) -> AsyncIterator[LimitedBridge]:
    provider = ScriptedProvider(*plays)
    async with running(config_of(text, folder), provider) as server, aiohttp.ClientSession() as session:
        yield LimitedBridge(server.url.replace("ws", "http", 1), provider, session)


@both
async def test_a_refusal_is_429_with_retry_after_in_whole_seconds(tmp_path: Path, wall: Wall, path: str):
    wall.advance(12.5)
    async with serving(RATE, tmp_path, answers(), answers()) as place:
        assert [(await place.post(path))[0] for _ in range(2)] == [200, 200]
        status, retry_after, body = await place.post(path)
        assert (status, retry_after, body["internalCode"]) == (429, "48", 2003)


@both
async def test_an_exhausted_budget_is_429(tmp_path: Path, wall: Wall, path: str):
    async with serving(OPEN + budget(), tmp_path, costing(1.0)) as place:
        assert (await place.post(path))[0] == 200
        status, retry_after, body = await place.post(path)
        assert (status, retry_after, body["internalCode"]) == (429, "43201", 2041)
        assert str(body["message"]).startswith("Spend limit exceeded: rule 'day'")


@both
async def test_an_event_that_waits_for_money_in_vain_gets_retry_after_one_second(tmp_path: Path, wall: Wall, path: str):
    async with serving(OPEN + budget(), tmp_path, costing(0.5), ScriptedResponse(before_head=[SILENCE])) as place:
        assert (await place.post(path))[0] == 200
        first = place.begin(path)
        await until(lambda: len(place.provider.requests) == 2)
        second = place.begin(path)
        await turns(200)
        advance(WAIT_S)
        status, retry_after, body = await second
        assert (status, retry_after, body["internalCode"]) == (429, "1", 2041)
        first.cancel()


@both
@pytest.mark.parametrize("limit", [OPEN + "max_concurrent = 1", BY_PROVIDER], ids=["gateway", "provider"])
async def test_requests_wait_for_a_slot(tmp_path: Path, path: str, limit: str):
    gate = asyncio.Event()
    async with serving(limit, tmp_path, waiting(gate), answers()) as place:
        first, second = place.begin(path), place.begin(path)
        await until(lambda: place.provider.requests)
        await turns(100)
        assert len(place.provider.requests) == 1
        gate.set()
        assert [(await each)[0] for each in (first, second)] == [200, 200]


async def test_requests_wait_no_longer_than_max_wait(tmp_path: Path):
    async with serving(
        OPEN + "max_concurrent = 1\nmax_wait = 2000", tmp_path, ScriptedResponse(before_head=[SILENCE])
    ) as place:
        first = place.begin(DIRECT)
        await until(lambda: place.provider.requests)
        second = place.begin(DIRECT)
        await turns(200)
        advance(2)
        status, retry_after, body = await second
        assert (status, retry_after, body["internalCode"]) == (429, "1", 9005)
        first.cancel()


async def test_a_client_that_disconnects_leaves_the_queue(tmp_path: Path):
    gate = asyncio.Event()
    async with serving(OPEN + "max_concurrent = 1", tmp_path, waiting(gate), answers()) as place:
        first = place.begin(DIRECT)
        await until(lambda: place.provider.requests)
        second = place.begin(DIRECT)
        await turns(200)
        second.cancel()
        await turns(200)
        third = place.begin(DIRECT)
        gate.set()
        assert [(await each)[0] for each in (first, third)] == [200, 200]
        assert len(place.provider.requests) == 2


async def test_a_long_relayed_answer_is_charged_by_the_usage_at_its_end(tmp_path: Path, wall: Wall):
    body = b'{"data":"' + b"x" * MAX_BUFFERED_BYTES + b'","usage":{"prompt_tokens":1000000,"completion_tokens":2}}'
    async with serving(OPEN + budget(), tmp_path, answers(body)) as place:
        status, _, headers = await place.post(DIRECT)
        assert (status, headers["usage"]) == (200, {"prompt_tokens": 1_000_000, "completion_tokens": 2})
        assert (await place.post(DIRECT))[0] == 429
