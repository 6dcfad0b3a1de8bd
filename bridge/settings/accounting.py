"""Settings whose value is an object: the custom cost and the metadata of an event.

Both are Cloudflare's: developers.cloudflare.com/ai-gateway, custom costs and custom metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import orjson

from bridge.settings.kinds import OutOfRangeError, refusal

MAX_METADATA_ENTRIES: Final = 5
MAX_METADATA_CHARS: Final = 1024
"""Limit of a name and of a string value. Cloudflare documents none, but an event keeps its metadata until it ends."""
MAX_USD: Final = 1_000_000.0
"""Limit of a custom cost, so that sums stay finite."""
_RESERVED: Final = {"cf.user_id"}

Metadata = dict[str, str | int | float | bool]


class CustomCost(msgspec.Struct, frozen=True):
    """US dollars per token, or for the whole request. A missing cache rate defaults to `per_token_in`."""

    per_token_in: float | None = None
    per_token_out: float | None = None
    per_cache_read_token: float | None = None
    per_cache_write_token: float | None = None
    total_cost: float | None = None


@dataclass(frozen=True, slots=True)
class CustomCosts:
    """Converter of a `CustomCost`."""

    expected: str = (
        'an object with "per_token_in" and "per_token_out" (and "per_cache_read_token", "per_cache_write_token"), '
        'or with "total_cost", each a number of US dollars, 0 to 1,000,000'
    )

    def convert(self, value: object) -> CustomCost:
        if not isinstance(value, Mapping) or not value:
            raise refusal(value, self.expected)
        try:
            cost = msgspec.convert(dict(value), CustomCost)
        except msgspec.ValidationError:
            raise refusal(value, self.expected) from None
        rates = msgspec.structs.astuple(cost)
        if any(rate is not None and not 0 <= rate <= MAX_USD for rate in rates):
            raise refusal(value, self.expected)
        if cost.total_cost is None and (cost.per_token_in is None or cost.per_token_out is None):
            raise refusal(value, self.expected)
        return cost

    def parse(self, text: str) -> CustomCost:
        return self.convert(_json(text, self.expected))


@dataclass(frozen=True, slots=True)
class MetadataEntries:
    """Converter of `Metadata`. The first five entries are kept, and object values are dropped."""

    expected: str = (
        f"an object of at most {MAX_METADATA_ENTRIES} entries, each a string, a number or a boolean, "
        f"of at most {MAX_METADATA_CHARS} characters"
    )

    def convert(self, value: object) -> Metadata:
        if not isinstance(value, Mapping):
            raise refusal(value, self.expected)
        kept = {
            str(name)[:MAX_METADATA_CHARS]: entry[:MAX_METADATA_CHARS] if isinstance(entry, str) else entry
            for name, entry in value.items()
            if isinstance(entry, str | int | float | bool) and name not in _RESERVED
        }
        first = dict(list(kept.items())[:MAX_METADATA_ENTRIES])
        if first != value:
            raise OutOfRangeError(str(refusal(value, self.expected)), first)
        return first

    def parse(self, text: str) -> Metadata:
        return self.convert(_json(text, self.expected))


def _json(text: str, expected: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise refusal(text, f"JSON: {expected}") from None
