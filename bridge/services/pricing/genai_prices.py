"""The price list of the package `genai-prices` (extra `cost`), read by the URL that was called and the model.

Its own `calc_price` takes some hundred microseconds, and it remembers every name that it is asked for: a client can
make up as many as it likes. So its tables are read here, and what was found is kept in a map with a bound.
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

MAX_KEPT: Final = 1024
_MINUTE_S: Final = 60
"""Some prices depend on the date and the time of day: what was found is asked for anew each minute."""


class GenaiPrices:
    """Raises ImportError where the package is missing. Loading it takes a quarter of a second."""

    def __init__(self) -> None:
        from genai_prices.data_snapshot import get_snapshot

        self._providers = get_snapshot().providers
        self._addresses = [(re.compile(provider.api_pattern), provider) for provider in self._providers]
        self._kept = lru_cache(MAX_KEPT)(self._look_up)

    def rates(self, url: str, model: str) -> ModelPrices | None:
        """None where the list has no provider at that base URL, or it has no such model."""
        return self._kept(url, model, int(time.time()) // _MINUTE_S)

    def _look_up(self, url: str, model: str, minute: int) -> ModelPrices | None:
        provider = self._at(url)
        found = provider.find_model(model, all_providers=self._providers) if provider is not None else None
        return None if found is None else _rates(found.get_prices(datetime.fromtimestamp(minute * _MINUTE_S, UTC)))

    def _at(self, url: str) -> "Provider | None":
        return next((provider for address, provider in self._addresses if address.match(url)), None)


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
