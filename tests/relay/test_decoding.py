"""Compressed request bodies: decoded to read fields, relayed unchanged unless the bridge rewrites them."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import orjson
import pytest
import zstandard

from bridge.errors import BadMessage, OutOfMemoryBudget, TooLarge
from bridge.protocol.steps import ProviderStep
from bridge.relay import decoding
from bridge.relay.decoding import decoded, with_decoded_bodies
from bridge.relay.interfaces import Services
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.summary import EventSummary
from bridge.server.server import Server
from bridge.settings.step import StepSettings
from bridge.upstream.http import Upstream
from tests.support.harness import config_of
from tests.support.provider_script import ScriptedProvider, answers
from tests.support.raw_http import ACCOUNT, CHAT_BODY, GATEWAY, connect_http

CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
KEY = {"authorization": "Bearer k", "content-type": "application/json"}
MIB = 1 << 20


def reserve(max_bytes: int = 256 * MIB) -> tuple[MemoryBudget, MemoryReservation]:
    budget = MemoryBudget(max_bytes, "the test")
    return budget, MemoryReservation(budget)


def step(body: bytes, coding: str | None, provider: str = "openai") -> ProviderStep:
    headers = {} if coding is None else {"content-encoding": coding}
    return ProviderStep(provider, "chat/completions", "POST", headers, headers, body, StepSettings())


class SummaryList:
    """An observer that collects event summaries."""

    def __init__(self) -> None:
        self.summaries: list[EventSummary] = []

    def on_event_end(self, summary: EventSummary) -> None:
        self.summaries.append(summary)


async def send(folder: Path, path: str, body: bytes, coding: str) -> tuple[int, ScriptedProvider, EventSummary]:
    provider, observer = ScriptedProvider(answers()), SummaryList()
    server = Server(config_of("", folder), Upstream(provider), Services(observers=(observer,)))
    await server.start()
    try:
        async with connect_http(server) as client:
            response = await client(path=path, body=body, headers={**KEY, "content-encoding": coding})
    finally:
        await server.stop()
    return response.status, provider, observer.summaries[0]


@pytest.mark.parametrize("coding", CODERS)
async def test_a_provider_path_receives_the_coded_body_and_the_model_is_known(tmp_path: Path, coding: str) -> None:
    body = CODERS[coding](CHAT_BODY)
    status, provider, summary = await send(tmp_path, f"{GATEWAY}/openai/v1/chat/completions", body, coding)
    assert (status, summary.model) == (200, "small")
    [received] = provider.requests
    assert (received.content, received.headers["content-encoding"]) == (body, coding)


@pytest.mark.parametrize("coding", CODERS)
async def test_compat_decodes_the_body_that_it_rewrites(tmp_path: Path, coding: str) -> None:
    body = CODERS[coding](b'{"model":"openai/small"}')
    status, provider, summary = await send(tmp_path, f"{GATEWAY}/compat/chat/completions", body, coding)
    assert (status, summary.model) == (200, "small")
    [received] = provider.requests
    assert (received.content, "content-encoding" in received.headers) == (b'{"model":"small"}', False)


@pytest.mark.parametrize("coding", CODERS)
async def test_the_list_of_steps_is_decoded(tmp_path: Path, coding: str) -> None:
    steps = [{"provider": "openai", "endpoint": "chat/completions", "headers": KEY, "query": {"model": "small"}}]
    status, provider, summary = await send(tmp_path, GATEWAY, CODERS[coding](orjson.dumps(steps)), coding)
    assert (status, summary.model) == (200, "small")
    assert provider.requests[0].content == b'{"model":"small"}'


@pytest.mark.parametrize("path", [f"{GATEWAY}/compat/chat/completions", GATEWAY, f"{ACCOUNT}/gateway/"])
@pytest.mark.parametrize(("body", "coding"), [(b"no gzip", "gzip"), (b"{}", "compress"), (b"", "gzip, br")])
async def test_a_body_that_must_be_decoded_and_cannot_be_is_refused(
    tmp_path: Path, path: str, body: bytes, coding: str
) -> None:
    status, provider, summary = await send(tmp_path, path, body, coding)
    assert (status, summary.code, provider.requests) == (400, 9001, [])


async def test_an_undecodable_body_is_relayed_without_a_known_model(tmp_path: Path) -> None:
    status, provider, summary = await send(tmp_path, f"{GATEWAY}/openai/chat/completions", b"no gzip", "gzip")
    assert (status, summary.model, provider.requests[0].content) == (200, None, b"no gzip")


async def test_decoded_bytes_count_in_the_memory_budget_and_are_bounded() -> None:
    bomb = gzip.compress(bytes(10 * MIB))
    budget, reservation = reserve()
    assert await decoded(bomb, "gzip", reservation, 10 * MIB) == bytes(10 * MIB)
    assert budget.used == 10 * MIB
    with pytest.raises(TooLarge):
        await decoded(bomb, "gzip", reservation, 10 * MIB - 1)
    assert budget.used == 10 * MIB
    budget, reservation = reserve(MIB)
    with pytest.raises(OutOfMemoryBudget):
        await decoded(bomb, "gzip", reservation, 10 * MIB)
    assert budget.used == 0


async def test_all_steps_of_an_event_share_one_inflation_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_INFLATED_BYTES", 5 * MIB)
    bomb = gzip.compress(bytes(3 * MIB))
    budget, reservation = reserve()
    plain, first, second = await with_decoded_bodies(
        [step(b"{}", None), step(bomb, "gzip"), step(bomb, "gzip")], reservation
    )
    assert (plain.readable, len(first.readable), second.readable) == (b"{}", 3 * MIB, b"")
    assert (second.body, budget.used) == (bomb, 3 * MIB)
    with pytest.raises(TooLarge):
        await with_decoded_bodies([step(bomb, "gzip"), step(bomb, "gzip", "compat")], reservation)
    with pytest.raises(BadMessage):
        await with_decoded_bodies([step(b"{}", "gzip", "compat")], reservation)


async def test_at_most_one_mebibyte_is_inflated_per_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    async def pause(_: float) -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr(decoding.asyncio, "sleep", pause)
    for coding in CODERS:
        turns = 0
        await decoded(CODERS[coding](bytes(32 * MIB)), coding, reserve()[1], 64 * MIB)
        assert turns >= 16, coding
