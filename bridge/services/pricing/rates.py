"""What tokens cost at given rates. Pure arithmetic, in US dollars.

Input counts its cached tokens and its sound (`bridge.formats.usage`): those come off it where they have a rate of their
own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bridge.formats.usage import Usage
from bridge.settings.accounting import CustomCost

DIGITS: Final = 12
"""Behind the point; what is smaller is a float's noise."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """US dollars per token. Once the input is longer than a tier's start, that tier's price is every token's."""

    usd: float
    tiers: tuple[tuple[int, float], ...] = ()
    """Starts, in tokens of the input, with their prices; in rising order."""

    def at(self, input_tokens: int) -> float:
        usd = self.usd
        for start, dearer in self.tiers:
            if input_tokens > start:
                usd = dearer
        return usd


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """A model's. None is a price that is not known; for a cache and for sound, that there is none but all others'."""

    input: TokenPrice | None
    output: TokenPrice | None
    cache_read: TokenPrice | None = None
    cache_write: TokenPrice | None = None
    request_usd: float = 0.0
    """For the request itself, whatever its tokens."""
    audio_input: TokenPrice | None = None
    audio_output: TokenPrice | None = None
    audio_cache_read: TokenPrice | None = None


def rates_of(custom: CustomCost) -> ModelPrices:
    """Of a custom cost that is given per token."""
    return ModelPrices(
        _rate(custom.per_token_in),
        _rate(custom.per_token_out),
        _rate(custom.per_cache_read_token),
        _rate(custom.per_cache_write_token),
    )


def _rate(usd: float | None) -> TokenPrice | None:
    return None if usd is None else TokenPrice(usd)


def custom_usd(custom: CustomCost, usage: Usage | None) -> float | None:
    """None where it is given per token, and no tokens were told."""
    if custom.total_cost is not None:
        return custom.total_cost
    return usage_usd(rates_of(custom), usage)


def usage_usd(rates: ModelPrices, usage: Usage | None) -> float | None:
    """None where the counts, or a rate that they need, are not known: a guess is no cost, and 0 would be one."""
    if usage is None or usage.input_tokens is None or rates.input is None:
        return None
    if usage.output_tokens and rates.output is None:
        return None
    length = usage.input_tokens
    usd = sum(tokens * rate.at(length) for tokens, rate in _charged(rates, usage) if rate is not None)
    return round(rates.request_usd + usd, DIGITS)


def _charged(rates: ModelPrices, usage: Usage) -> Iterator[tuple[int, TokenPrice | None]]:
    """Every token once, with its rate."""
    read, written, out = usage.cached_tokens or 0, usage.cache_write_tokens or 0, usage.output_tokens or 0
    heard = (usage.input_audio_tokens or 0) if rates.audio_input else 0
    heard_again = min(usage.cached_audio_tokens or 0, heard)
    spoken = min(usage.output_audio_tokens or 0, out) if rates.audio_output else 0
    yield max((usage.input_tokens or 0) - read - written - (heard - heard_again), 0), rates.input
    yield heard - heard_again, rates.audio_input
    yield max(read - heard_again, 0), rates.cache_read or rates.input
    yield heard_again, rates.audio_cache_read or rates.cache_read or rates.audio_input
    yield written, rates.cache_write or rates.input
    yield out - spoken, rates.output
    yield spoken, rates.audio_output
