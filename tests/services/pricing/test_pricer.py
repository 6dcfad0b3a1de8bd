"""What an event costs: whose word counts, and that the price list is read as its makers read it."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from genai_prices import Usage as Counted
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

from bridge.config.gateways import Gateway
from bridge.formats.usage import Usage
from bridge.policy.reported import UNPRICED_USD, Reported
from bridge.protocol.messages import ProviderStep
from bridge.providers import REGISTRY
from bridge.relay.plan import PlannedStep, RequestContext, plan
from bridge.relay.summary import Cost
from bridge.services.pricing.genai_prices import MAX_CACHED, GenaiPrices
from bridge.services.pricing.pricer import EventPricer
from bridge.services.pricing.rates import usage_usd
from bridge.settings.accounting import CustomCost
from bridge.settings.step import StepSettings
from tests.support.commands import environment

PRICES = GenaiPrices()
PRICER = EventPricer(PRICES)
USED = Usage(1_000_000, 100_000)


def planned(
    provider: str = "openai",
    model: str | None = "gpt-4o-mini",
    gateway_s: CustomCost | None = None,
    path: str = "chat/completions",
    method: str = "POST",
    **settings: Any,
) -> PlannedStep:
    body = msgspec.json.encode({"model": model} if model else {})
    step = ProviderStep(provider, path, method, {}, {}, body, StepSettings(**settings))
    gateway = Gateway("gateway", settings=StepSettings(custom_cost=gateway_s))
    context = RequestContext("account", "gateway", gateway, REGISTRY, lambda: gateway)
    (one,) = plan([step], context)
    return one


REPORTED = {"cost": 0.0007}


def cost(planned: PlannedStep, usage: Usage | None, reported: Reported, pricer: EventPricer = PRICER) -> Cost | None:
    return pricer.claimed(planned, usage, pricer.known(planned, usage, reported))


@pytest.mark.parametrize(
    ("custom", "usage", "reported", "expected"),
    [
        (CustomCost(1e-6, 2e-6), USED, REPORTED, Cost(1.2, "custom", known_usd=0.0007)),
        (CustomCost(1e-6, 2e-6), None, REPORTED, Cost(0.0007, "provider")),
        (CustomCost(total_cost=3.0), None, {}, Cost(3.0, "custom", known_usd=0.0)),
        (None, USED, REPORTED, Cost(0.0007, "provider")),
        (None, USED, {"cost": 0}, Cost(0.0, "provider")),
        (None, USED, {"cost": "0.0007"}, Cost(0.21, "prices")),
        (None, USED, {}, Cost(0.21, "prices")),
        (None, None, {}, None),
    ],
)
def test_the_clients_price_is_shown_and_the_providers_or_listed_price_is_charged(
    custom: CustomCost | None, usage: Usage | None, reported: Reported, expected: Cost | None
) -> None:
    assert cost(planned("openrouter", "openai/gpt-4o-mini", custom_cost=custom), usage, reported) == expected


def test_the_gateways_price_overrides_all_others() -> None:
    ours = CustomCost(2e-6, 3e-6)
    assert cost(planned("openrouter", custom_cost=ours, gateway_s=ours), USED, REPORTED) == Cost(2.3, "custom")
    priced = cost(planned("openrouter", custom_cost=CustomCost(total_cost=0.0), gateway_s=ours), USED, REPORTED)
    assert priced == Cost(0.0, "custom", known_usd=2.3)
    assert priced.charged_usd == 2.3


def test_a_reported_cost_is_capped_at_ten_times_the_estimate_or_the_list_price() -> None:
    mini = planned("openrouter", "openai/gpt-4o-mini")
    estimate = PRICER.expected_usd(mini)
    assert estimate is not None
    assert cost(mini, None, {"cost": 10 * estimate}) == Cost(10 * estimate, "provider")
    assert cost(mini, None, {"cost": 9e15}) == Cost(10 * estimate, "provider", is_capped=True)
    assert cost(mini, USED, {"cost": 0.2}) == Cost(0.2, "provider"), "a long answer to a short question"
    assert cost(mini, USED, {"cost": 9e15}) == Cost(0.21, "provider", is_capped=True)


def test_without_a_known_price_the_estimate_is_one_dollar() -> None:
    unpriced = planned("openrouter", "no such model")
    assert cost(unpriced, USED, {"cost": 7.5}) == Cost(7.5, "provider")
    assert cost(unpriced, USED, {"cost": 9e15}) == Cost(10 * UNPRICED_USD, "provider", is_capped=True)


@pytest.mark.parametrize(
    "unbelieved",
    [
        planned("openai"),
        planned("openai", path="files"),
        planned("openrouter", path="files", model=None),
        planned("openrouter", method="GET", model=None),
    ],
    ids=["not known to report costs", "a file", "no model endpoint", "no POST"],
)
def test_a_cost_reported_by_an_unknown_source_is_ignored(unbelieved: PlannedStep) -> None:
    assert cost(unbelieved, None, {"cost": 9e15, "cost_in_usd_ticks": 9e15}) is None


@pytest.mark.parametrize(
    "unknown",
    [
        planned(model="no such model"),
        planned(model=None),
        planned("cartesia"),
        replace(planned(), target=replace(planned().target, base="http://127.0.0.1:8000/v1")),
    ],
    ids=["model", "none named", "provider", "another address"],
)
def test_an_unlisted_model_has_no_cost(unknown: PlannedStep) -> None:
    assert cost(unknown, USED, {}) is None


def test_without_a_list_only_custom_and_reported_costs_count() -> None:
    listless = EventPricer(None)
    assert cost(planned("openrouter"), USED, {}, listless) is None
    assert cost(planned("openrouter"), USED, REPORTED, listless) == Cost(0.0007, "provider")


BASES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
    "aws": "https://bedrock-runtime.us-east-1.amazonaws.com",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai",
    "deepseek": "https://api.deepseek.com",
    "perplexity": "https://api.perplexity.ai",
    "x-ai": "https://api.x.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
USAGES = (
    Usage(1000, 100),
    Usage(300_000, 5000, 200_000),
    Usage(90_000, 0, 10_000, None, 70_000),
    Usage(9000, 800, input_audio_tokens=6000, output_audio_tokens=700),
    Usage(9000, 800, 7000, None, None, 6000, 800, 5000),
)


@pytest.mark.parametrize("name", BASES)
def test_every_price_equals_the_lists_own_calculation(name: str) -> None:
    """Of every model that has a price for text, with and without caches, tiers and sound."""
    provider = next(each for each in get_snapshot().providers if each.id == name)
    compared = 0
    for model in provider.models:
        rates = PRICES.rates(BASES[name], model.id)
        for usage in USAGES:
            usd = None if rates is None else usage_usd(rates, usage)
            if usd is not None:
                counted = Counted(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cached_tokens,
                    cache_write_tokens=usage.cache_write_tokens,
                    input_audio_tokens=usage.input_audio_tokens,
                    output_audio_tokens=usage.output_audio_tokens,
                    cache_audio_read_tokens=usage.cached_audio_tokens,
                )
                theirs = calc_price(counted, model.id, provider_api_url=BASES[name]).total_price
                assert usd == pytest.approx(float(theirs)), model.id
                compared += 1
    assert compared > len(USAGES)


def test_names_invented_by_clients_use_bounded_memory() -> None:
    prices = GenaiPrices()
    for number in range(MAX_CACHED + 10):
        prices.rates("https://no-such-host.example", f"model-{number}")
    assert prices._cached.cache_info().currsize == MAX_CACHED


def test_without_the_extra_a_bridge_serves_without_prices() -> None:
    """In a process of its own, in which the package cannot be imported."""
    program = (
        "import asyncio, sys; sys.modules['genai_prices'] = None\n"
        "from bridge.services.build import build_services\n"
        "from bridge.config import load\n"
        "async def main():\n"
        "    async with build_services(load(None, {}, {})) as services:\n"
        "        assert services.pricer._prices is None\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
