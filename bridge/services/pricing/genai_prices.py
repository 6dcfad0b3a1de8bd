"""The price list of the package `genai-prices` (extra `cost`), looked up by base URL and model.

Its own `calc_price` takes some hundred microseconds and caches every name it sees, without a bound; clients choose
these names. This module reads its tables directly and caches results in a bounded map.
"""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.services.pricing.rates import ModelPrices, TokenPrice

if TYPE_CHECKING:
    from decimal import Decimal

    from genai_prices.types import ModelPrice, Provider, TieredPrices

MAX_CACHED: Final = 1024
_MINUTE_S: Final = 60
"""Cached results expire each minute, because some prices depend on date and time of day."""


class GenaiPrices:
    """The loaded price list.

    Raises ImportError if the package is missing. Loading takes a quarter of a second.
    """

    def __init__(self) -> None:
        from genai_prices.data_snapshot import get_snapshot

        self._providers = get_snapshot().providers
        self._patterns = [(re.compile(provider.api_pattern), provider) for provider in self._providers]
        self._cached = lru_cache(MAX_CACHED)(self._look_up)

    def rates(self, url: str, model: str) -> ModelPrices | None:
        """Return the prices of a model; None if the list has no provider at that base URL or no such model."""
        return self._cached(url, model, int(time.time()) // _MINUTE_S)

    def _look_up(self, url: str, model: str, minute: int) -> ModelPrices | None:
        provider = self._provider_at(url)
        found = provider.find_model(model, all_providers=self._providers) if provider is not None else None
        return None if found is None else _rates(found.get_prices(datetime.fromtimestamp(minute * _MINUTE_S, UTC)))

    def _provider_at(self, url: str) -> "Provider | None":
        return next((provider for pattern, provider in self._patterns if pattern.match(url)), None)


def _rates(price: "ModelPrice") -> ModelPrices:
    per_request = _rate(price.requests_kcount, 1_000)
    return ModelPrices(
        _rate(price.input_mtok),
        _rate(price.output_mtok),
        _rate(price.cache_read_mtok),
        _rate(price.cache_write_mtok),
        0.0 if per_request is None else per_request.usd,
        _rate(price.input_audio_mtok),
        _rate(price.output_audio_mtok),
        _rate(price.cache_audio_read_mtok),
    )


def _rate(price: "Decimal | TieredPrices | None", per: int = 1_000_000) -> TokenPrice | None:
    from genai_prices.types import TieredPrices

    if price is None:
        return None
    if isinstance(price, TieredPrices):
        return TokenPrice(float(price.base / per), tuple((tier.start, float(tier.price / per)) for tier in price.tiers))
    return TokenPrice(float(price / per))
