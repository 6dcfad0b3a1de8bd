"""How much a gateway, or one of its tokens, may be used. The vocabulary is Cloudflare AI Gateway's.

Sources: developers.cloudflare.com/ai-gateway/features/spend-limits and /rate-limiting; the modes' names are those of
Cloudflare's Terraform provider (resource `cloudflare_ai_gateway`), whose schema is made from the same API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

DEFAULT_MAX_WAIT_MS: Final = 10_000

Technique = Literal["fixed", "sliding"]
Mode = Literal["partition", "filter"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` provider calls in `interval_s` seconds: in windows of the clock, or in the last so many seconds.

    An event counts as one call when it begins; each attempt after its first counts as one more.
    """

    limit: int
    interval_s: int
    technique: Technique = "fixed"


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a rule looks at in an event.

    `partition`: each value has a budget of its own, where `values` names some only those. `filter`: the rule is for
    the events whose value is one of `values`, which share a budget. A value is the text of what the event says.
    """

    mode: Mode
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SpendRule:
    """So many US dollars in so many seconds. It is for the events that fit all of its dimensions."""

    id: str
    """Told to the client; no two rules of one table have the same."""
    limit_usd: float
    window_s: int
    technique: Technique = "sliding"
    metadata: Mapping[str, Dimension] = field(default_factory=dict)
    """By the key of an event's metadata."""
    provider: Dimension | None = None
    """Its values are slugs."""
    model: Dimension | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """None and 0 are no limit."""

    rate: RateLimit | None = None
    spend: tuple[SpendRule, ...] = ()
    max_concurrent: int = 0
    """Events in flight at once; more of them wait their turn."""
    max_concurrent_by_provider: Mapping[str, int] = field(default_factory=dict)
    max_wait_ms: int = DEFAULT_MAX_WAIT_MS
    """How long an event may wait for a turn, at each of the two. 0: not at all."""
    allow_unpriced: bool = False
    """A call that a rule of `spend` counts may be made although its cost cannot be known."""


NO_LIMITS = Limits()
