"""Cost of an event: reported, estimated from a stream without usage, or unknown."""

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
INPUT_USAGE = b'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n\n'
TEXT = b'data: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


def metrics_url(server: Server) -> str:
    return server.url.replace("ws", "http", 1) + "/metrics"


async def last(folder: Path, scripted: ScriptedResponse, request: Frame = PRICED) -> Frame:
    """Run one event and return the metadata of its last frame."""
    async with running(config_of("", folder), ScriptedProvider(scripted)) as server, connected(server) as client:
        frames = await client.call({"eventId": 1, **request})
        metadata: Frame = frames[-1]["metadata"]
        return metadata


ESTIMATES = {
    "cut, without usage": (streams(ROLE, content("a"), content("b"), RESET), INPUT + 300),
    "cut, with input tokens and the first output token": (streams(INPUT_USAGE, TEXT, TEXT, TEXT, RESET), 7 + 400),
    "complete, without usage": (streams(*COMPLETE), INPUT + 300),
}


@pytest.mark.parametrize(("scripted", "usd"), ESTIMATES.values(), ids=ESTIMATES)
async def test_unreported_usage_is_estimated_with_a_warning(tmp_path: Path, scripted: ScriptedResponse, usd: float):
    metadata = await last(tmp_path, scripted)
    assert metadata["cost"] == usd
    assert metadata["warnings"] == [ESTIMATED]


KNOWN = {
    "a stream with usage": (streams(ROLE, content("a"), FINISH, USAGE, DONE), PRICED, 203.0),
    "a buffered answer with usage": (
        answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'),
        PRICED,
        203.0,
    ),
    "a cut stream at a fixed price per request": (
        streams(content("a"), RESET),
        step(customCost={"total_cost": 5.0}),
        5.0,
    ),
    "a cut stream with a reported cost": (
        streams(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"cost":0.25}}\n\n', RESET),
        step("openrouter"),
        0.25,
    ),
}


@pytest.mark.parametrize(("scripted", "request_", "usd"), KNOWN.values(), ids=KNOWN)
async def test_a_reported_cost_is_not_an_estimate(
    tmp_path: Path, scripted: ScriptedResponse, request_: Frame, usd: float
):
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
    "a cost in the answer of a POST to another endpoint": (
        answers(b'{"usage":{"cost":9e15}}'),
        {**step("openrouter"), "endpoint": "files"},
    ),
    "a negative cost": (answers(b'{"usage":{"cost":-1}}'), step("openrouter")),
    "a stream without a price": (streams(content("a"), RESET), step()),
    "a buffered answer without usage": (answers(), PRICED),
    "a failure": (answers(status=500), PRICED),
    "audio, which has no tokens": (streams(b"abc" * 1000, content_type="audio/mpeg"), PRICED),
}


@pytest.mark.parametrize(("scripted", "request_"), UNKNOWN.values(), ids=UNKNOWN)
async def test_an_unknown_cost_is_omitted(tmp_path: Path, scripted: ScriptedResponse, request_: Frame):
    metadata = await last(tmp_path, scripted, request_)
    assert "cost" not in metadata
    assert "warnings" not in metadata


REPORTED = {
    "OpenRouter": ("openrouter", b'{"usage":{"cost":0.25}}', 0.25),
    "Perplexity": ("perplexity-ai", b'{"usage":{"cost":{"input_tokens_cost":0.1,"total_cost":0.5}}}', 0.5),
    "xAI, whose ticks are 10^-10 of a dollar": ("grok", b'{"usage":{"cost_in_usd_ticks":37756000}}', 0.0037756),
}


@pytest.mark.parametrize(("slug", "body", "usd"), REPORTED.values(), ids=REPORTED)
async def test_a_reported_cost_counts_if_the_provider_is_known_to_report_costs(
    tmp_path: Path, slug: str, body: bytes, usd: float
):
    metadata = await last(tmp_path, answers(body), step(slug))
    assert metadata["cost"] == pytest.approx(usd)
    assert "warnings" not in metadata


async def test_a_reported_cost_counts_up_to_ten_times_the_estimate(tmp_path: Path):
    metadata = await last(tmp_path, answers(b'{"usage":{"cost":9e15}}'), step("openrouter"))
    assert metadata["cost"] == 10 * UNPRICED_USD
    assert metadata["warnings"] == [HIGH_COST]


async def test_token_counts_are_capped(tmp_path: Path):
    body = b'{"usage":{"prompt_tokens":900000000000,"completion_tokens":2,"total_tokens":900000000002}}'
    metadata = await last(tmp_path, answers(body), PRICED)
    assert metadata["usage"] == {"inputTokens": MAX_TOKENS, "outputTokens": 2, "totalTokens": MAX_TOKENS + 2}
    assert metadata["cost"] == MAX_TOKENS + 200.0
    assert metadata["warnings"] == [MANY_TOKENS]


async def test_a_client_price_does_not_suppress_the_estimate_of_unreported_usage(tmp_path: Path):
    """The charge is the estimate at the gateway's price."""
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


async def test_a_cancelled_stream_is_charged_for_its_received_part(tmp_path: Path):
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


async def call(client: Client, steps: list[Frame]) -> list[Frame]:
    await client.create(steps, eventId=1)
    return await client.until_last(1)


async def test_a_broken_stream_is_charged_in_addition_to_its_replacement(tmp_path: Path):
    steps = [step(customCost=RATES, onBreak="restart"), step("groq", customCost=RATES)]
    responses = [streams(INPUT_USAGE, TEXT, TEXT, TEXT, RESET), streams(ROLE, content("a"), FINISH, USAGE, DONE)]
    for second, usd in (
        (responses[1], 203.0),
        (answers(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'), 203.0),
    ):
        async with (
            running(config_of("", tmp_path), ScriptedProvider(responses[0], second)) as server,
            connected(server) as client,
        ):
            frames = await call(client, steps)
            assert frames[-1]["metadata"]["cost"] == 7 + 400 + usd
            assert frames[-1]["metadata"]["warnings"] == [ESTIMATED]


async def test_a_failed_restart_charges_the_broken_stream_once(tmp_path: Path):
    steps = [step(customCost=RATES, onBreak="restart"), step("groq", customCost=RATES)]
    provider = ScriptedProvider(streams(INPUT_USAGE, TEXT, TEXT, TEXT, RESET), answers(status=500))
    async with running(config_of("", tmp_path), provider) as server, connected(server) as client:
        frames = await call(client, steps)
        assert frames[-1]["metadata"]["cost"] == 7 + 400
