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
from bridge.policy.pricing import usage_usd
from bridge.providers import REGISTRY
from bridge.relay.entry import Cost
from bridge.relay.plan import Ground, PlannedStep, plan
from bridge.services.price_list import MAX_KEPT, PriceList
from bridge.services.pricer import PricerOfEvents
from bridge.settings.accounting import CustomCost
from bridge.settings.step import StepSettings
from bridge.wire.messages import Step
from bridge.wire.usage import Usage
from tests.commands import environment

PRICES = PriceList()
PRICER = PricerOfEvents(PRICES)
USED = Usage(1_000_000, 100_000)


def planned(
    provider: str = "openai", model: str | None = "gpt-4o-mini", gateway_s: CustomCost | None = None, **settings: Any
) -> PlannedStep:
    body = msgspec.json.encode({"model": model} if model else {})
    step = Step(provider, "chat/completions", "POST", {}, {}, body, StepSettings(**settings))
    gateway = Gateway("gateway", settings=StepSettings(custom_cost=gateway_s))
    ground = Ground("account", "gateway", gateway, REGISTRY, lambda: gateway)
    (one,) = plan([step], ground)
    return one


@pytest.mark.parametrize(
    ("custom", "usage", "told", "cost"),
    [
        (CustomCost(1e-6, 2e-6), USED, 0.7, Cost(1.2, "custom", known_usd=0.7)),
        (CustomCost(1e-6, 2e-6), None, 0.7, Cost(0.7, "provider")),
        (CustomCost(total_cost=3.0), None, None, Cost(3.0, "custom", known_usd=0.0)),
        (None, USED, 0.7, Cost(0.7, "provider")),
        (None, USED, 0.0, Cost(0.0, "provider")),
        (None, USED, None, Cost(0.21, "prices")),
        (None, None, None, None),
    ],
)
def test_the_clients_word_comes_before_the_providers_and_that_before_the_lists(
    custom: CustomCost | None, usage: Usage | None, told: float | None, cost: Cost | None
) -> None:
    assert PRICER.cost(planned(custom_cost=custom), usage, told) == cost


def test_the_gateways_word_is_what_it_knows_whatever_the_client_says() -> None:
    ours = CustomCost(2e-6, 3e-6)
    assert PRICER.cost(planned(custom_cost=ours, gateway_s=ours), USED, 0.7) == Cost(2.3, "custom")
    said = PRICER.cost(planned(custom_cost=CustomCost(total_cost=0.0), gateway_s=ours), USED, 0.7)
    assert said == Cost(0.0, "custom", known_usd=2.3)
    assert said.charged_usd == 2.3


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
def test_what_the_list_does_not_know_has_no_cost(unknown: PlannedStep) -> None:
    assert PRICER.cost(unknown, USED, None) is None


def test_without_a_list_only_words_count() -> None:
    assert PricerOfEvents(None).cost(planned(), USED, None) is None
    assert PricerOfEvents(None).cost(planned(), USED, 0.7) == Cost(0.7, "provider")


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
def test_every_price_is_what_the_lists_own_arithmetic_makes_of_it(name: str) -> None:
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


def test_names_that_clients_make_up_are_not_remembered_for_ever() -> None:
    prices = PriceList()
    for number in range(MAX_KEPT + 10):
        prices.rates("https://no-such-host.example", f"model-{number}")
    assert prices._kept.cache_info().currsize == MAX_KEPT


def test_without_the_extra_a_bridge_serves_and_tells_no_price() -> None:
    """In a process of its own, in which the package cannot be imported."""
    program = (
        "import asyncio, sys; sys.modules['genai_prices'] = None\n"
        "from bridge.assembly import services_of\n"
        "from bridge.config import load\n"
        "async def main():\n"
        "    async with services_of(load(None, {}, {})) as services:\n"
        "        assert services.pricer._prices is None\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
