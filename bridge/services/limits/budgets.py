"""Select the budgets that count an attempt, and build the refusal when one of them is exhausted. Pure."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from bridge.config.limits import Dimension, Limits, SpendRule
from bridge.errors import CannotBePriced, SpendLimit
from bridge.services.limits.windows import wait_ms
from bridge.settings.accounting import Metadata

SOON_MS: Final = 1000
"""The suggested retry delay when it depends on how long other events take."""
_SHOWN_CHARACTERS: Final = 64


Values: TypeAlias = tuple[tuple[str, str], ...]
"""The partition values of one budget: the name of each dimension with its value."""


class Owner(NamedTuple):
    """The owner of limits: a gateway or one of its tokens."""

    gateway: str
    """The configured name."""
    token: str = ""
    """Empty for the gateway's own limits."""

    def __str__(self) -> str:
        return f"token {self.token!r}" if self.token else f"gateway {self.gateway!r}"


class SpendContext(NamedTuple):
    """The attributes of an attempt that spend rules match."""

    metadata: Metadata | None
    provider: str
    """A provider slug."""
    model: str | None


class Budget(NamedTuple):
    """The money that one rule grants one group of events in each window."""

    key: str
    """Stable across processes and reloads while owner, rule id and window stay the same."""
    rule: SpendRule
    owner: Owner
    values: Values

    @property
    def whose(self) -> str:
        """Describe owner and partition values, for error messages to the client."""
        return ", ".join([str(self.owner), *(f"{name} {value[:_SHOWN_CHARACTERS]!r}" for name, value in self.values)])


class BudgetUsage(NamedTuple):
    """Usage of a budget in US dollars, for the current window and the one before."""

    spent: float = 0.0
    reserved: float = 0.0
    """Held for events in flight, including weighted reservations of the previous window."""
    previous: float = 0.0
    """Spent in the previous window."""
    weight: float = 0.0
    """The share of the previous window that still counts, 0 to 1."""
    left_s: float = 0.0
    """Seconds left of the current window."""

    @property
    def total(self) -> float:
        return self.spent + self.reserved + self.previous * self.weight


def matching_budgets(owner: Owner, rules: Iterable[SpendRule], context: SpendContext) -> Iterator[Budget]:
    """Yield the budget of each rule that matches the attempt."""
    for rule in rules:
        values = _values(rule, context)
        if values is not None:
            yield Budget(_key(owner.gateway, owner.token, rule.id, rule.window_s, values), rule, owner, values)


def first_unpriced(limits: Limits, context: SpendContext) -> SpendRule | None:
    """Return the first rule that counts the attempt and needs its cost; None if no price is needed.

    A rule limited to some models also matches an attempt whose model is unknown.
    """
    if limits.allow_unpriced:
        return None
    return next((rule for rule in limits.spend if _values(_of_any_model(rule, context), context) is not None), None)


def unpriced(rule: SpendRule, owner: Owner, context: SpendContext) -> CannotBePriced:
    """Build the refusal of an attempt without a known price; it names the rule and the possible settings."""
    model = "no model can be read from the request"
    if context.model is not None:
        model = f"no price is known for the model {context.model[:_SHOWN_CHARACTERS]!r}"
    return CannotBePriced(
        f"{context.provider}: {model}, and the spend limit {rule.id!r} of {owner} needs its cost. Set custom_cost for "
        "the gateway, install the price list (pip install 'universal-bridge[cost]'), or allow calls without a price "
        'with spend_limits.unpriced = "allow".'
    )


def _of_any_model(rule: SpendRule, context: SpendContext) -> SpendRule:
    return replace(rule, model=None) if context.model is None and rule.model is not None else rule


def is_exhausted(budget: Budget, usage: BudgetUsage) -> bool:
    """Return True if spent and reserved money reach the limit. The estimate of the event itself is not included."""
    return usage.total >= budget.rule.limit_usd


def refusal(budget: Budget, usage: BudgetUsage) -> SpendLimit:
    """Build the SpendLimit error. Its words are Cloudflare's
    (developers.cloudflare.com/ai-gateway/features/spend-limits).
    """
    rule = budget.rule
    error = SpendLimit(
        f"Spend limit exceeded: rule {rule.id!r} (cost limit {rule.limit_usd:g} per {rule.window_s}s, "
        f"{rule.technique}) for {budget.whose}",
        retry_after_ms=_retry_after_ms(rule, usage),
    )
    error.is_per_step = rule.provider is not None or rule.model is not None
    error.pending_budget = budget.key if _is_only_reserved(rule, usage) else ""
    return error


def _is_only_reserved(rule: SpendRule, usage: BudgetUsage) -> bool:
    """Return True if the budget has money left once reservations of events in flight are released."""
    return usage.total - usage.reserved < rule.limit_usd


def _retry_after_ms(rule: SpendRule, usage: BudgetUsage) -> int | None:
    if _is_only_reserved(rule, usage):
        return SOON_MS
    return wait_ms(rule.technique, rule.limit_usd, rule.window_s, usage.left_s, usage.previous, usage.spent)


def _values(rule: SpendRule, context: SpendContext) -> Values | None:
    """Return the partition values; None if the rule does not match the attempt."""
    found = []
    for name, dimension, value in _dimensions(rule, context):
        if value is None or (dimension.values and value not in dimension.values):
            return None
        if dimension.mode == "partition":
            found.append((name, value))
    return tuple(found)


def _dimensions(rule: SpendRule, context: SpendContext) -> Iterator[tuple[str, Dimension, str | None]]:
    metadata = context.metadata or {}
    for key, dimension in rule.metadata.items():
        yield key, dimension, _text(metadata[key]) if key in metadata else None
    if rule.provider is not None:
        yield "provider", rule.provider, context.provider
    if rule.model is not None:
        yield "model", rule.model, context.model


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=4096)
def _key(gateway: str, token: str, rule: str, window_s: int, values: Values) -> str:
    # Values come from clients: a digest bounds their length and hides them in a shared store. The json module is
    # used because orjson rejects lone surrogates.
    parts = json.dumps([gateway, token, rule, window_s, values])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
