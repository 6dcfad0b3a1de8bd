"""What an event cost: told, estimated where a stream did not tell, or unknown."""

import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import orjson
import pytest

from bridge.policy.reported import MAX_TOKENS, UNPRICED_USD
from bridge.relay.costs import ESTIMATED, HIGH_COST, MANY_TOKENS
from bridge.server.server import Server
from tests.support.clock import turns, until
from tests.support.event_harness import COMPLETE, DONE, FINISH, ROLE, USAGE, Frame, content, step
from tests.support.harness import Client, config_of, connected, running
from tests.support.provider_script import RESET, SILENCE, ScriptedProvider, ScriptedResponse, answers, streams

RATES = {"per_token_in": 1.0, "per_token_out": 100.0}
PRICED = step(customCost=RATES)
INPUT = len(orjson.dumps(PRICED["query"])) // 4
TOLD = b'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n\n'
TEXT = b'data: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


def metrics_url(server: Server) -> str:
    return server.url.replace("ws", "http", 1) + "/metrics"


async def last(folder: Path, scripted: ScriptedResponse, request: Frame = PRICED) -> Frame:
    """The last frame's metadata."""
    async with running(config_of("", folder), ScriptedProvider(scripted)) as server, connected(server) as client:
        frames = await client.call({"eventId": 1, **request})
        metadata: Frame = frames[-1]["metadata"]
        return metadata


ESTIMATES = {
    "cut, and nothing was told": (streams(ROLE, content("a"), content("b"), RESET), INPUT + 300),
    "cut, and the input was told, with the first token": (streams(TOLD, TEXT, TEXT, TEXT, RESET), 7 + 400),
    "whole, and nothing was told": (streams(*COMPLETE), INPUT + 300),
}


@pytest.mark.parametrize(("scripted", "usd"), ESTIMATES.values(), ids=ESTIMATES)
async def test_what_a_stream_did_not_tell_is_estimated_and_warned_of(
    tmp_path: Path, scripted: ScriptedResponse, usd: float
):
    metadata = await last(tmp_path, scripted)
    assert metadata["cost"] == usd
    assert metadata["warnings"] == [ESTIMATED]


KNOWN = {
    "a stream that told its usage": (streams(ROLE, content("a"), FINISH, USAGE, DONE), PRICED, 203.0),
    "an answer in one piece that told its usage": (
        answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'),
        PRICED,
        203.0,
    ),
    "a cut stream at a price for the whole": (streams(content("a"), RESET), step(customCost={"total_cost": 5.0}), 5.0),
    "a cut stream whose provider told what it cost": (
        streams(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"cost":0.25}}\n\n', RESET),
        step("openrouter"),
        0.25,
    ),
}


@pytest.mark.parametrize(("scripted", "request_", "usd"), KNOWN.values(), ids=KNOWN)
async def test_what_was_told_is_no_estimate(tmp_path: Path, scripted: ScriptedResponse, request_: Frame, usd: float):
    metadata = await last(tmp_path, scripted, request_)
    assert metadata["cost"] == usd
    assert "warnings" not in metadata


UNKNOWN = {
    "a cost from a provider that is not known to report costs": (
        answers(b'{"usage":{"cost":0.25}}'),
        step(),
    ),
    "a cost in a file that a client downloads": (
        answers(b'{"usage":{"cost":9e15}}'),
        {**step("openrouter"), "method": "GET", "endpoint": "files/1"},
    ),
    "a cost in the answer to a POST that makes no model answer": (
        answers(b'{"usage":{"cost":9e15}}'),
        {**step("openrouter"), "endpoint": "files"},
    ),
    "a cost that is no amount": (answers(b'{"usage":{"cost":-1}}'), step("openrouter")),
    "a stream without a price": (streams(content("a"), RESET), step()),
    "an answer in one piece that told nothing": (answers(), PRICED),
    "a failure": (answers(status=500), PRICED),
    "sound, which has no tokens": (streams(b"abc" * 1000, content_type="audio/mpeg"), PRICED),
}


@pytest.mark.parametrize(("scripted", "request_"), UNKNOWN.values(), ids=UNKNOWN)
async def test_what_nobody_knows_is_not_told(tmp_path: Path, scripted: ScriptedResponse, request_: Frame):
    metadata = await last(tmp_path, scripted, request_)
    assert "cost" not in metadata
    assert "warnings" not in metadata


REPORTED = {
    "OpenRouter": ("openrouter", b'{"usage":{"cost":0.25}}', 0.25),
    "Perplexity": ("perplexity-ai", b'{"usage":{"cost":{"input_tokens_cost":0.1,"total_cost":0.5}}}', 0.5),
    "xAI, whose ticks are 10^-10 of a dollar": ("grok", b'{"usage":{"cost_in_usd_ticks":37756000}}', 0.0037756),
}


@pytest.mark.parametrize(("slug", "body", "usd"), REPORTED.values(), ids=REPORTED)
async def test_a_cost_counts_from_providers_that_are_known_to_report_costs(
    tmp_path: Path, slug: str, body: bytes, usd: float
):
    metadata = await last(tmp_path, answers(body), step(slug))
    assert metadata["cost"] == pytest.approx(usd)
    assert "warnings" not in metadata


async def test_a_reported_cost_counts_up_to_ten_times_the_estimate(tmp_path: Path):
    metadata = await last(tmp_path, answers(b'{"usage":{"cost":9e15}}'), step("openrouter"))
    assert metadata["cost"] == 10 * UNPRICED_USD
    assert metadata["warnings"] == [HIGH_COST]


async def test_more_tokens_than_can_be_meant_are_not_counted(tmp_path: Path):
    body = b'{"usage":{"prompt_tokens":900000000000,"completion_tokens":2,"total_tokens":900000000002}}'
    metadata = await last(tmp_path, answers(body), PRICED)
    assert metadata["usage"] == {"inputTokens": MAX_TOKENS, "outputTokens": 2, "totalTokens": MAX_TOKENS + 2}
    assert metadata["cost"] == MAX_TOKENS + 200.0
    assert metadata["warnings"] == [MANY_TOKENS]


async def test_a_clients_own_price_does_not_hide_that_a_stream_did_not_tell_its_usage(tmp_path: Path):
    """What is charged is the estimate by the price that the gateway knows."""
    text = (
        '[server]\nlog_path = "log.db"\n[gateways.gateway]\ncustom_cost = { per_token_in = 1.0, per_token_out = 100.0 }'
    )
    request = step(customCost={"total_cost": 0.0})
    provider = ScriptedProvider(streams(*COMPLETE))
    async with running(config_of(text, tmp_path), provider) as server, connected(server) as client:
        frames = await client.call({"eventId": 1, **request})
        async with aiohttp.ClientSession() as session, session.get(metrics_url(server)) as response:
            metrics = await response.text()
    charged = len(orjson.dumps(request["query"])) // 4 + 300.0
    assert (frames[-1]["metadata"]["cost"], frames[-1]["metadata"]["warnings"]) == (0.0, [ESTIMATED])
    (counted,) = [line for line in metrics.splitlines() if line.startswith("bridge_cost_usd_total{")]
    assert float(counted.rpartition(" ")[2]) == charged


async def test_a_cancelled_stream_cost_what_was_seen_of_it(tmp_path: Path):
    provider = ScriptedProvider(streams(ROLE, content("a"), SILENCE))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        await client.create({"eventId": 1, **PRICED})
        await until(lambda: provider.requests and provider.requests[0].reads == 2)
        await turns(20)
        await client.cancel(1)
        frames = await client.until_last(1)
        assert frames[-1]["metadata"]["cost"] == INPUT + 200


async def test_an_estimate_is_marked_in_the_log(tmp_path: Path):
    text = '[server]\nlog_path = "log.db"'
    provider = ScriptedProvider(streams(content("a"), RESET))
    async with running(config_of(text, tmp_path), provider) as server, connected(server) as client:
        await client.call({"eventId": 1, **PRICED})
    with closing(sqlite3.connect(tmp_path / "log.db")) as log:
        rows = log.execute("SELECT cost, cost_estimated, cost_source FROM requests").fetchall()
    assert rows == [(INPUT + 100, 1, "custom")]


async def called(client: Client, steps: list[Frame]) -> list[Frame]:
    await client.create(steps, eventId=1)
    return await client.until_last(1)


async def test_a_stream_that_broke_is_charged_though_another_answer_came_in_its_place(tmp_path: Path):
    steps = [step(customCost=RATES, onBreak="restart"), step("groq", customCost=RATES)]
    responses = [streams(TOLD, TEXT, TEXT, TEXT, RESET), streams(ROLE, content("a"), FINISH, USAGE, DONE)]
    for second, usd in (
        (responses[1], 203.0),
        (answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'), 203.0),
    ):
        async with (
            running(config_of("", tmp_path), ScriptedProvider(responses[0], second)) as server,
            connected(server) as client,
        ):
            frames = await called(client, steps)
            assert frames[-1]["metadata"]["cost"] == 7 + 400 + usd
            assert frames[-1]["metadata"]["warnings"] == [ESTIMATED]


async def test_a_restart_that_fails_charges_the_stream_that_broke_once(tmp_path: Path):
    steps = [step(customCost=RATES, onBreak="restart"), step("groq", customCost=RATES)]
    provider = ScriptedProvider(streams(TOLD, TEXT, TEXT, TEXT, RESET), answers(status=500))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        frames = await called(client, steps)
        assert frames[-1]["metadata"]["cost"] == 7 + 400
