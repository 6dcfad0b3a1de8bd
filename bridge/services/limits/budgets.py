"""Which budgets an event draws on, and what the client is told when one of them is used up."""

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
"""When to ask again, where it depends on how long other events take."""
_SHOWN_CHARACTERS: Final = 64


Values: TypeAlias = tuple[tuple[str, str], ...]
"""What a rule tells groups of events apart by, with the values of one of them."""


class Owner(NamedTuple):
    """Whose rules they are: a gateway's, or one of its tokens'."""

    gateway: str
    """As it is configured."""
    token: str = ""
    """Empty for the gateway's own."""

    def __str__(self) -> str:
        return f"token {self.token!r}" if self.token else f"gateway {self.gateway!r}"


class SpendContext(NamedTuple):
    """What rules look at in one attempt of an event."""

    metadata: Metadata | None
    provider: str
    """A slug."""
    model: str | None


class Budget(NamedTuple):
    """What one rule lets one group of events spend in each window."""

    key: str
    """The same in every process, as long as the rule has its owner, its id and its window."""
    rule: SpendRule
    owner: Owner
    values: Values

    @property
    def whose(self) -> str:
        """Told to the client."""
        return ", ".join([str(self.owner), *(f"{name} {value[:_SHOWN_CHARACTERS]!r}" for name, value in self.values)])


class BudgetUsage(NamedTuple):
    """US dollars, in the window of now and in the one before."""

    spent: float = 0.0
    reserved: float = 0.0
    """For events in flight, also for those that began in the window before, as much as that one counts."""
    previous: float = 0.0
    """Spent in the window before."""
    weight: float = 0.0
    """How much of that counts."""
    left_s: float = 0.0
    """Of the window."""

    @property
    def total(self) -> float:
        return self.spent + self.reserved + self.previous * self.weight


def matching_budgets(owner: Owner, rules: Iterable[SpendRule], spender: SpendContext) -> Iterator[Budget]:
    """Of the rules that are for this attempt."""
    for rule in rules:
        values = _values(rule, spender)
        if values is not None:
            yield Budget(_key(owner.gateway, owner.token, rule.id, rule.window_s, values), rule, owner, values)


def first_unpriced(limits: Limits, spender: SpendContext) -> SpendRule | None:
    """The first rule that counts such an attempt and wants to know its cost; None if its cost need not be known.

    A rule for some models counts an attempt of which nobody knows the model.
    """
    if limits.allow_unpriced:
        return None
    return next((rule for rule in limits.spend if _values(_of_any_model(rule, spender), spender) is not None), None)


def unpriced(rule: SpendRule, owner: Owner, spender: SpendContext) -> CannotBePriced:
    """The refusal says what is missing and what to configure."""
    model = "no model can be read from the request"
    if spender.model is not None:
        model = f"no price is known of the model {spender.model[:_SHOWN_CHARACTERS]!r}"
    return CannotBePriced(
        f"{spender.provider}: {model}, and the spend limit {rule.id!r} of {owner} counts its cost. Give the gateway a "
        "custom_cost, install the price list (pip install 'universal-bridge[cost]'), or let such calls pass uncounted "
        'with spend_limits.unpriced = "allow".'
    )


def _of_any_model(rule: SpendRule, spender: SpendContext) -> SpendRule:
    return replace(rule, model=None) if spender.model is None and rule.model is not None else rule


def is_exhausted(budget: Budget, usage: BudgetUsage) -> bool:
    """True if spent and reserved money reach the limit. The estimate of the event itself refuses nobody."""
    return usage.total >= budget.rule.limit_usd


def refusal(budget: Budget, usage: BudgetUsage) -> SpendLimit:
    """The error in Cloudflare's words (PROVIDERS.md 3.6)."""
    rule = budget.rule
    error = SpendLimit(
        f"Spend limit exceeded: rule {rule.id!r} (cost limit {rule.limit_usd:g} per {rule.window_s}s, "
        f"{rule.technique}) for {budget.whose}",
        retry_after_ms=_again_ms(rule, usage),
    )
    error.is_per_step = rule.provider is not None or rule.model is not None
    error.pending_budget = budget.key if _is_only_reserved(rule, usage) else ""
    return error


def _is_only_reserved(rule: SpendRule, usage: BudgetUsage) -> bool:
    """True if events in flight may yet cost less than was reserved, and leave money."""
    return usage.total - usage.reserved < rule.limit_usd


def _again_ms(rule: SpendRule, usage: BudgetUsage) -> int | None:
    if _is_only_reserved(rule, usage):
        return SOON_MS
    return wait_ms(rule.technique, rule.limit_usd, rule.window_s, usage.left_s, usage.previous, usage.spent)


def _values(rule: SpendRule, spender: SpendContext) -> Values | None:
    """None when the rule is not for this attempt."""
    found = []
    for name, dimension, value in _looked_at(rule, spender):
        if value is None or (dimension.values and value not in dimension.values):
            return None
        if dimension.mode == "partition":
            found.append((name, value))
    return tuple(found)


def _looked_at(rule: SpendRule, spender: SpendContext) -> Iterator[tuple[str, Dimension, str | None]]:
    metadata = spender.metadata or {}
    for key, dimension in rule.metadata.items():
        yield key, dimension, _text(metadata[key]) if key in metadata else None
    if rule.provider is not None:
        yield "provider", rule.provider, spender.provider
    if rule.model is not None:
        yield "model", rule.model, spender.model


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@lru_cache(maxsize=4096)
def _key(gateway: str, token: str, rule: str, window_s: int, values: Values) -> str:
    # A digest, for values are the clients': of any length, and nobody's business in a shared store. And not orjson,
    # for they may hold a lone surrogate.
    parts = json.dumps([gateway, token, rule, window_s, values])
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
