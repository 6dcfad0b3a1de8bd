"""Limits of a gateway or token. The vocabulary is Cloudflare AI Gateway's.

Sources: developers.cloudflare.com/ai-gateway/features/spend-limits and /rate-limiting; the names of the modes are those
of Cloudflare's Terraform provider (resource `cloudflare_ai_gateway`), whose schema is generated from the same API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

DEFAULT_MAX_WAIT_MS: Final = 10_000

Technique = Literal["fixed", "sliding"]
Mode = Literal["partition", "filter"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` provider calls in `interval_s` seconds, in a fixed or a sliding window.

    An event counts as one call when it begins; each attempt after its first counts as one more.
    """

    limit: int
    interval_s: int
    technique: Technique = "fixed"


@dataclass(frozen=True, slots=True)
class Dimension:
    """An attribute of events that a spend rule matches.

    `partition`: each value has its own budget; `values` restricts the rule to some of them. `filter`: the rule matches
    the events whose value is one of `values`, which share a budget. Values are compared as text.
    """

    mode: Mode
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SpendRule:
    """A limit in US dollars per window, for the events that match all of its dimensions."""

    id: str
    """Shown to clients; unique in its table."""
    limit_usd: float
    window_s: int
    technique: Technique = "sliding"
    metadata: Mapping[str, Dimension] = field(default_factory=dict)
    """Dimensions by metadata key."""
    provider: Dimension | None = None
    """Its values are provider slugs."""
    model: Dimension | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of an owner. None and 0 mean no limit."""

    rate: RateLimit | None = None
    spend: tuple[SpendRule, ...] = ()
    max_concurrent: int = 0
    """Events in flight at the same time; further events wait."""
    max_concurrent_by_provider: Mapping[str, int] = field(default_factory=dict)
    max_wait_ms: int = DEFAULT_MAX_WAIT_MS
    """The longest wait for each of the two concurrency limits. 0: no waiting."""
    allow_unpriced: bool = False
    """Allow calls that a spend rule counts although their cost cannot be known."""


NO_LIMITS = Limits()
