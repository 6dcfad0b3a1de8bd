"""A budget does not silently count nothing: a call that it counts and nobody can price is not made (9027)."""

from pathlib import Path
from typing import Any

import pytest

from bridge.config.limits import Dimension, Limits, SpendRule
from bridge.policy.breaker import FAILURES
from bridge.services.limits.budgets import SpendContext, first_unpriced
from tests.support.event_harness import step
from tests.support.harness import Frame, config_of, connected, running
from tests.support.provider_script import ScriptedProvider, ScriptedResponse, answers

RULE = '{ id = "day", limitType = "cost", limit = 1.0, window = 86400 }'
BUDGET = f"spend_limits.rules = [{RULE}]\n"
BY_MODEL = f'spend_limits.rules = [{RULE[:-2]}, model = {{ mode = "filter", values = ["small"] }} }}]\n'
ALLOWED = BUDGET + 'spend_limits.unpriced = "allow"\n'
PRICED = "custom_cost = { per_token_in = 1e-6, per_token_out = 1e-6 }\n"


def request_for(model: str | None, slug: str = "openai", **more: Any) -> Frame:
    query = {"stream": False} if model is None else {"model": model}
    return {**step(slug), "query": query, **more}


def posted(endpoint: str) -> Frame:
    return request_for(None, endpoint=endpoint, query={"purpose": "batch"})


async def last_frames(
    folder: Path, text: str, *requests: object, plays: tuple[ScriptedResponse, ...] = ()
) -> list[Frame]:
    provider = ScriptedProvider(*plays)
    frames = []
    config = config_of(f"[gateways.gateway]\n{text}", folder)
    async with running(config, provider) as server, connected(server) as client:
        for number, request in enumerate(requests):
            await client.create(request, eventId=f"event {number}")
            frames.append((await client.until_last(f"event {number}"))[-1])
    assert len(provider.requests) == len(plays)
    return frames


def code(frame: Frame) -> int | None:
    found: int | None = frame.get("error", {}).get("code")
    return found


async def test_an_unpriced_call_is_refused_with_the_settings_to_change(tmp_path: Path) -> None:
    [unknown, none] = await last_frames(tmp_path, BUDGET, request_for("no-such-model"), request_for(None))
    for frame, reason in ((unknown, "no price is known for the model 'no-such-model'"), (none, "no model can be read")):
        assert frame["error"] | {"message": ""} == {
            "code": 9027,
            "message": "",
            "source": "client",
            "retryable": False,
        }
        assert frame["metadata"]["status"] == 403
        for hint in (reason, "custom_cost", "universal-bridge[cost]", 'spend_limits.unpriced = "allow"', "'day'"):
            assert hint in frame["error"]["message"]


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        pytest.param("", request_for("no-such-model"), id="no rule"),
        pytest.param(ALLOWED, request_for("no-such-model"), id="allowed"),
        pytest.param(BUDGET, request_for("gpt-4o-mini"), id="in the price list"),
        pytest.param(BUDGET + PRICED, request_for(None), id="the gateway's own price"),
        pytest.param(BUDGET, request_for("no-such-model", "openrouter"), id="a provider that reports costs"),
        pytest.param(BUDGET, request_for(None, endpoint="v1/models", method="GET", query=None), id="a list of models"),
        pytest.param(BUDGET, posted("v1/files"), id="no model endpoint"),
        pytest.param(BY_MODEL, request_for("no-such-model"), id="a rule for another model"),
    ],
)
async def test_a_call_with_a_price_or_without_a_budget_is_made(tmp_path: Path, text: str, request_: Frame) -> None:
    [frame] = await last_frames(tmp_path, text, request_, plays=(answers(),))
    assert code(frame) is None


async def test_a_rule_for_a_model_is_not_evaded_by_hiding_the_model(tmp_path: Path) -> None:
    [frame] = await last_frames(tmp_path, BY_MODEL, request_for(None))
    assert code(frame) == 9027


async def test_a_clients_custom_price_is_no_price(tmp_path: Path) -> None:
    priced = request_for("no-such-model", config={"customCost": {"per_token_in": 0.0, "per_token_out": 0.0}})
    [frame] = await last_frames(tmp_path, BUDGET, priced)
    assert code(frame) == 9027


async def test_an_unpriced_step_fails_and_is_not_retried(tmp_path: Path) -> None:
    chain = [request_for("no-such-model", config={"maxAttempts": 3, "retryDelay": 1}), request_for("gpt-4o-mini")]
    [frame] = await last_frames(tmp_path, BUDGET, chain, plays=(answers(),))
    assert [attempt.get("code") for attempt in frame["metadata"]["attempts"]] == [9027, None]
    assert frame["metadata"]["step"] == "1"


async def test_the_breaker_does_not_count_an_unpriced_step(tmp_path: Path) -> None:
    frames = await last_frames(tmp_path, BUDGET, *[request_for("no-such-model")] * (FAILURES + 2))
    assert {code(frame) for frame in frames} == {9027}


async def test_a_tokens_budget_also_requires_a_price(tmp_path: Path) -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    text = f'[gateways.gateway]\n[gateways.gateway.tokens.ci]\ntoken = "sha256:{digest}"\n{BUDGET}'
    token = {"cf-aig-authorization": "test"}
    async with (
        running(config_of(text, tmp_path), ScriptedProvider()) as server,
        connected(server, headers=token) as client,
    ):
        await client.create(request_for("no-such-model"), eventId="event")
        frame = (await client.until_last("event"))[-1]
    assert code(frame) == 9027
    assert "token 'ci'" in frame["error"]["message"]


def test_the_first_rule_that_counts_the_call_is_the_one_that_refuses_it() -> None:
    here, elsewhere = (
        SpendRule("here", 1.0, 60),
        SpendRule("elsewhere", 1.0, 60, provider=Dimension("filter", frozenset({"groq"}))),
    )
    limits = Limits(spend=(elsewhere, here))
    assert first_unpriced(limits, SpendContext(None, "openai", "m")) is here
    assert first_unpriced(limits, SpendContext(None, "groq", "m")) is elsewhere
    assert first_unpriced(Limits(spend=(elsewhere,)), SpendContext(None, "openai", None)) is None
    assert first_unpriced(Limits(spend=(here,), allow_unpriced=True), SpendContext(None, "openai", None)) is None
