"""What tokens cost at given rates."""

import pytest

from bridge.formats.usage import Usage
from bridge.services.pricing.rates import ModelPrices, TokenPrice, custom_usd, usage_usd
from bridge.settings.accounting import CustomCost

DEAR = ModelPrices(TokenPrice(3e-6), TokenPrice(15e-6), TokenPrice(0.3e-6), TokenPrice(3.75e-6))


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(1000, 100), 1000 * 3e-6 + 100 * 15e-6),
        (Usage(1000, 100, 600), 400 * 3e-6 + 600 * 0.3e-6 + 100 * 15e-6),
        (Usage(1000, 100, 600, None, 300), 100 * 3e-6 + 600 * 0.3e-6 + 300 * 3.75e-6 + 100 * 15e-6),
        (Usage(1000, None), 1000 * 3e-6),
        (Usage(0, 0), 0.0),
        (Usage(100, 0, 600), 600 * 0.3e-6),  # a provider that counts more from its cache than went in
        (Usage(None, 100), None),
        (Usage(None, None, None, 1100), None),
        (None, None),
    ],
)
def test_cached_tokens_are_subtracted_from_input_and_missing_counts_have_no_cost(
    usage: Usage | None, usd: float | None
) -> None:
    assert usage_usd(DEAR, usage) == pytest.approx(usd)


def test_cached_tokens_without_a_rate_cost_the_input_rate() -> None:
    assert usage_usd(ModelPrices(TokenPrice(2.0), TokenPrice(1.0)), Usage(10, 1, 4, None, 3)) == 21


@pytest.mark.parametrize(
    ("rates", "usage"),
    [(ModelPrices(TokenPrice(1.0), None), Usage(1, 1)), (ModelPrices(None, TokenPrice(1.0)), Usage(1, 1))],
)
def test_tokens_with_an_unknown_rate_make_the_cost_unknown(rates: ModelPrices, usage: Usage) -> None:
    assert usage_usd(rates, usage) is None


def test_a_model_without_an_output_price_has_a_cost_without_output() -> None:
    """An embedding."""
    assert usage_usd(ModelPrices(TokenPrice(1.0), None), Usage(3)) == 3


@pytest.mark.parametrize(("length", "usd"), [(200, 200), (201, 402), (400, 800), (401, 1203)])
def test_above_a_tiers_start_all_tokens_have_its_price(length: int, usd: float) -> None:
    assert usage_usd(ModelPrices(TokenPrice(1.0, ((200, 2.0), (400, 3.0))), None), Usage(length)) == usd


def test_a_request_may_have_a_price() -> None:
    assert usage_usd(ModelPrices(TokenPrice(1.0), TokenPrice(1.0), request_usd=5.0), Usage(1, 1)) == 7


def test_a_cost_has_no_floating_point_noise() -> None:
    assert usage_usd(ModelPrices(TokenPrice(0.15 / 1e6), TokenPrice(0.6 / 1e6)), Usage(1000, 100)) == 0.000_21


@pytest.mark.parametrize(
    ("custom", "usage", "usd"),
    [
        (CustomCost(0.001, 0.002), Usage(10, 5), 0.02),
        (CustomCost(0.001, 0.002), Usage(10, 5, 4), 0.02),
        (CustomCost(0.001, 0.002, per_cache_read_token=0.0), Usage(10, 5, 4), 0.016),
        # Once one rate of a cache is given, the other is per_token_in; as it is if none is.
        (CustomCost(0.001, 0.002, per_cache_read_token=0.0), Usage(10, 5, 4, None, 4), 0.016),
        (CustomCost(0.001, 0.002, per_cache_write_token=0.01), Usage(10, 5, 4, None, 4), 0.056),
        (CustomCost(0.0, 0.0), Usage(10, 5), 0.0),
        (CustomCost(0.001, 0.002), None, None),
        (CustomCost(total_cost=0.5), None, 0.5),
        (CustomCost(0.001, 0.002, total_cost=0.5), Usage(10, 5), 0.5),
    ],
)
def test_a_custom_cost_is_per_token_or_for_the_whole_request(
    custom: CustomCost, usage: Usage | None, usd: float | None
) -> None:
    assert custom_usd(custom, usage) == pytest.approx(usd)
