"""How much a gateway, or one of its tokens, may be used. The vocabulary is Cloudflare AI Gateway's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Technique = Literal["fixed", "sliding"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many events in so many seconds: of the clock's windows, or the last so many."""

    limit: int
    interval_s: int
    technique: Technique = "fixed"


@dataclass(frozen=True, slots=True)
class SpendRule:
    """So many US dollars in so many seconds."""

    id: str
    limit_usd: float
    window_s: int
    technique: Technique = "fixed"
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Keys of an event's metadata, each with its mode: what it counts by, or the value it must have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """None and 0 are no limit."""

    rate: RateLimit | None = None
    spend: tuple[SpendRule, ...] = ()
    max_concurrent: int = 0
    """Events in flight at once; more of them wait their turn."""
    max_concurrent_by_provider: Mapping[str, int] = field(default_factory=dict)


NO_LIMITS = Limits()
