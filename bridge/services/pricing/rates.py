"""Compute the cost of tokens at given rates, in US dollars. Pure.

Input tokens include cached and audio tokens (`bridge.formats.usage`); these are subtracted where they have a rate of
their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bridge.formats.usage import Usage
from bridge.settings.accounting import CustomCost

DIGITS: Final = 12
"""Decimal places kept; smaller amounts are floating-point noise."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars per token. Above the start of a tier, the tier's price applies to all tokens."""

    usd: float
    tiers: tuple[tuple[int, float], ...] = ()
    """Pairs of an input length in tokens and a price, in ascending order."""

    def at(self, input_tokens: int) -> float:
        usd = self.usd
        for start, tier_usd in self.tiers:
            if input_tokens > start:
                usd = tier_usd
        return usd


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """Prices of one model.

    None is an unknown price. For cache and audio tokens, None means that the general price applies.
    """

    input: TokenPrice | None
    output: TokenPrice | None
    cache_read: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    request_usd: float = 0.0
    """Charged per request, independent of tokens."""
    audio_input: TokenPrice | None = None
    audio_output: TokenPrice | None = None
    audio_cache_read: TokenPrice | None = None


def rates_of(custom: CustomCost) -> ModelPrices:
    """Convert a custom cost given per token."""
    return ModelPrices(
        _rate(custom.per_token_in),
        _rate(custom.per_token_out),
        _rate(custom.per_cache_read_token),
        _rate(custom.per_cache_write_token),
    )


def _rate(usd: float | None) -> TokenPrice | None:
    return None if usd is None else TokenPrice(usd)


def custom_usd(custom: CustomCost, usage: Usage | None) -> float | None:
    """Return the cost by a custom price; None if it is given per token and no tokens were reported."""
    if custom.total_cost is not None:
        return custom.total_cost
    return usage_usd(rates_of(custom), usage)


def usage_usd(rates: ModelPrices, usage: Usage | None) -> float | None:
    """Return the cost of the usage; None if a token count or a required rate is unknown.

    A guess would be no cost, and 0 would be a wrong one.
    """
    if usage is None or usage.input_tokens is None or rates.input is None:
        return None
    if usage.output_tokens and rates.output is None:
        return None
    length = usage.input_tokens
    usd = sum(tokens * rate.at(length) for tokens, rate in _charged(rates, usage) if rate is not None)
    return round(rates.request_usd + usd, DIGITS)


def _charged(rates: ModelPrices, usage: Usage) -> Iterator[tuple[int, TokenPrice | None]]:
    """Yield every token count once, with its rate."""
    read, written, out = usage.cached_tokens or 0, usage.cache_write_tokens or 0, usage.output_tokens or 0
    audio_input = (usage.input_audio_tokens or 0) if rates.audio_input else 0
    cached_audio = min(usage.cached_audio_tokens or 0, audio_input)
    audio_output = min(usage.output_audio_tokens or 0, out) if rates.audio_output else 0
    yield max((usage.input_tokens or 0) - read - written - (audio_input - cached_audio), 0), rates.input
    yield audio_input - cached_audio, rates.audio_input
    yield max(read - cached_audio, 0), rates.cache_read or rates.input
    yield cached_audio, rates.audio_cache_read or rates.cache_read or rates.audio_input
    yield written, rates.cache_write or rates.input
    yield out - audio_output, rates.output
    yield audio_output, rates.audio_output
