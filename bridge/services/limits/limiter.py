"""Enforces the limits of gateways and of their tokens: calls per window, events at once, US dollars.

Limits are looked up for each event, so what a reload changes counts from the next one on. A token's come before its
gateway's everywhere: a token over its own limits uses up nothing of what others share.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from bridge.config import Configuration
from bridge.config.gateways import Gateway
from bridge.config.limits import Limits, RateLimit
from bridge.errors import RateLimited
from bridge.policy.cost_estimates import Averages
from bridge.policy.reported import UNPRICED_USD, reports_costs
from bridge.relay.interfaces import Charge, Pricer
from bridge.relay.plan import PlannedStep, RequestContext
from bridge.services.limits.budgets import Budget, Owner, SpendContext, first_unpriced, matching_budgets, unpriced
from bridge.services.limits.concurrency import ConcurrencyLimiter
from bridge.services.limits.ledger import BudgetReservation, reservations_of
from bridge.services.limits.reserving import BudgetStore, Reservations
from bridge.settings.accounting import Metadata
from bridge.settings.step import StepSettings


class RateCounter(Protocol):
    async def wait_ms(self, rate: RateLimit, name: str) -> int | None:
        """Counts a call and returns None; or counts nothing and returns how long until one more may pass."""


class LimitScope(NamedTuple):
    """Whose limits an event is under."""

    owner: Owner
    limits: Limits


class GatewayLimiter:
    """`relay.services.Gate`, of one process."""

    def __init__(self, rates: RateCounter, spendings: BudgetStore, pricer: Pricer | None = None) -> None:
        self.lines = ConcurrencyLimiter()
        self.reservations = Reservations(spendings)
        self._rates = rates
        self._pricer = pricer
        self._averages = Averages()

    async def admit(self, context: RequestContext, settings: StepSettings) -> "GatewayAdmission | None":
        scopes = list(scopes_of(context.current_gateway(), context.token))
        if not scopes:
            return None
        await self.count(scopes)
        turns: list[Callable[[], None]] = []
        try:
            for owner, limits in scopes:
                if most := limits.max_concurrent:
                    turns.append(await self.lines.acquire(owner, most, limits.max_wait_ms, str(owner)))
        except BaseException:
            release(turns)
            raise
        return GatewayAdmission(self, scopes, settings.metadata, turns)

    async def count(self, scopes: Sequence[LimitScope]) -> None:
        """Counts one provider call in each window. Raises RateLimited for the first that is full."""
        for scope in scopes:
            await self._count(scope)

    async def _count(self, scope: LimitScope) -> None:
        rate, owner = scope.limits.rate, scope.owner
        if rate is None:
            return
        wait_ms = await self._rates.wait_ms(rate, f"{owner.gateway}/{owner.token}")
        if wait_ms is not None:
            raise RateLimited(
                f"Rate limited: {rate.limit} requests per {rate.interval_s}s ({rate.technique}) for {owner}",
                retry_after_ms=wait_ms,
            )

    def estimated_usd(self, planned: PlannedStep) -> float:
        """Returns the greater of what its model cost here of late and what its price says of the request.

        The average alone would be low where many cheap calls come before dear ones. 0 is for a call that cannot be
        charged: its price is not known, and its provider reports no costs.
        """
        by_price = self._pricer.expected_usd(planned) if self._pricer is not None else None
        known = [usd for usd in (self._averages.usd(_priced_alike(planned)), by_price) if usd is not None]
        if known:
            return max(known)
        step = planned.step
        return UNPRICED_USD if reports_costs(planned.provider, step.method, step.endpoint) else 0.0

    def check_price(self, planned: PlannedStep, scopes: Sequence[LimitScope], spender: SpendContext) -> None:
        """Raises CannotBePriced for a model's answer that a rule counts and nobody can price."""
        if not planned.calls_model:
            return
        rules = [(rule, owner) for owner, limits in scopes if (rule := first_unpriced(limits, spender)) is not None]
        if rules and (self._pricer is None or not self._pricer.can_price(planned)):
            raise unpriced(*rules[0], spender)

    def learn(self, planned: PlannedStep, usd: float) -> None:
        self._averages.add(_priced_alike(planned), usd)


class GatewayAdmission:
    """`relay.services.Admission`: what an event has taken. Its turns, until `leave`; its reservations, as well."""

    def __init__(
        self, gate: GatewayLimiter, scopes: list[LimitScope], metadata: Metadata | None, turns: list[Callable[[], None]]
    ) -> None:
        self._gate = gate
        self._scopes = scopes
        self._metadata = metadata
        self._turns = turns
        self._postings: dict[str, BudgetReservation] = {}
        """By the key of the purse."""
        self._reserved_for: PlannedStep | None = None
        """The step that money was reserved for last."""
        self._has_counted_call = True
        """The windows hold a call that was not made yet; the first one was counted when the event was admitted."""

    async def acquire(self, planned: PlannedStep) -> Callable[[], None]:
        """Money comes before the turn: an event that waits for money must not hold a turn that others wait for."""
        self._gate.check_price(planned, self._scopes, self._spender(planned))
        if not self._has_counted_call:
            await self._gate.count(self._scopes)
            self._has_counted_call = True
        await self._reserve(planned)
        turns = await self._turns_at(planned.provider.slug)
        self._has_counted_call = False
        return partial(release, turns)

    def settle(self, charges: Sequence[Charge]) -> None:
        release(self._turns)
        charged: dict[str, tuple[Budget, float]] = {}
        for planned, cost in charges:
            for budget in self._charged_purses(planned, cost.charged_usd):
                charged[budget.key] = budget, charged.get(budget.key, (budget, 0.0))[1] + cost.charged_usd
        settled = [(held, charged[key][1] if key in charged else 0.0) for key, held in self._postings.items()]
        for key, (budget, usd) in charged.items():
            if key not in self._postings:
                settled += [(reservation, usd) for reservation in reservations_of([budget], 0.0, time.time())]
        if settled:
            self._gate.reservations.settle(settled)

    def _charged_purses(self, planned: PlannedStep, usd: float) -> list[Budget]:
        budgets = list(self._budgets(planned)) if usd else []
        if budgets:
            self._gate.learn(planned, usd)
        return budgets

    async def _turns_at(self, slug: str) -> list[Callable[[], None]]:
        turns: list[Callable[[], None]] = []
        try:
            for owner, limits in self._scopes:
                if most := limits.max_concurrent_by_provider.get(slug):
                    whose = f"{slug}, as {owner} may call it"
                    turns.append(await self._gate.lines.acquire((owner, slug), most, limits.max_wait_ms, whose))
        except BaseException:
            release(turns)
            raise
        return turns

    async def _reserve(self, planned: PlannedStep) -> None:
        """A retry, or a step that is no dearer, draws on what the event holds already; a dearer one reserves anew."""
        budgets = list(self._budgets(planned))
        if not budgets or planned is self._reserved_for:
            return
        usd = self._gate.estimated_usd(planned)
        wanting = [budget for budget in budgets if (held := self._postings.get(budget.key)) is None or held.usd < usd]
        if given_back := [self._postings.pop(purse.key) for purse in wanting if purse.key in self._postings]:
            self._gate.reservations.settle([(posting, 0.0) for posting in given_back])
        if wanting:
            for reservation in await self._gate.reservations.reserve(wanting, usd):
                self._postings[reservation.page[0]] = reservation
        self._reserved_for = planned

    def _spender(self, planned: PlannedStep) -> SpendContext:
        return SpendContext(self._metadata, planned.provider.slug, planned.model)

    def _budgets(self, planned: PlannedStep) -> Iterator[Budget]:
        spender = self._spender(planned)
        for scope in self._scopes:
            if scope.limits.spend:
                yield from matching_budgets(scope.owner, scope.limits.spend, spender)


def scopes_of(gateway: Gateway, token_name: str) -> Iterator[LimitScope]:
    """Those that limit anything. By the gateway's own name: one for any name has one limit for all of them."""
    token = gateway.token(token_name) if token_name else None
    if token is not None and _is_limited(token.limits):
        yield LimitScope(Owner(gateway.name, token.name), token.limits)
    if _is_limited(gateway.limits):
        yield LimitScope(Owner(gateway.name), gateway.limits)


def has_budgets(config: Configuration) -> bool:
    """True if any gateway or token has a spend limit."""
    gateways = config.gateways.values()
    limits = [gateway.limits for gateway in gateways]
    limits += [token.limits for gateway in gateways for token in gateway.tokens]
    return any(each.spend for each in limits)


def release(turns: Sequence[Callable[[], None]]) -> None:
    for turn in turns:
        turn()


def _is_limited(limits: Limits) -> bool:
    return bool(limits.rate or limits.spend or limits.max_concurrent or limits.max_concurrent_by_provider)


def _priced_alike(planned: PlannedStep) -> tuple[str, str | None]:
    return planned.target.base, planned.model
