"""Enforce the limits of gateways and tokens: requests per window, concurrent events, US dollars.

Limits are looked up for each event, so a reload applies from the next event on. A token's limits are checked before its
gateway's: a token over its own limits consumes nothing of the shared ones.
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
        """Count a call and return None.

        If the window is full, count nothing and return the milliseconds until it has room.
        """


class LimitScope(NamedTuple):
    """The limits of one owner that apply to an event."""

    owner: Owner
    limits: Limits


class GatewayLimiter:
    """Implement `relay.interfaces.Limiter` for one process."""

    def __init__(self, rates: RateCounter, budgets: BudgetStore, pricer: Pricer | None = None) -> None:
        self.slots = ConcurrencyLimiter()
        self.reservations = Reservations(budgets)
        self._rates = rates
        self._pricer = pricer
        self._averages = Averages()

    async def admit(self, context: RequestContext, settings: StepSettings) -> "GatewayAdmission | None":
        scopes = list(scopes_of(context.current_gateway(), context.token))
        if not scopes:
            return None
        await self.count(scopes)
        held_slots: list[Callable[[], None]] = []
        try:
            for owner, limits in scopes:
                if limit := limits.max_concurrent:
                    held_slots.append(await self.slots.acquire(owner, limit, limits.max_wait_ms, str(owner)))
        except BaseException:
            release(held_slots)
            raise
        return GatewayAdmission(self, scopes, settings.metadata, held_slots)

    async def count(self, scopes: Sequence[LimitScope]) -> None:
        """Count one provider call in each window. Raises RateLimited for the first that is full."""
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
        """Return the greater of the recent average cost of its model and the listed price of the request.

        The average alone underestimates expensive calls that follow many cheap ones. The result is 0 for a call that
        cannot be charged: its price is unknown and its provider reports no costs.
        """
        by_price = self._pricer.expected_usd(planned) if self._pricer is not None else None
        known = [usd for usd in (self._averages.usd(_price_key(planned)), by_price) if usd is not None]
        if known:
            return max(known)
        step = planned.step
        return UNPRICED_USD if reports_costs(planned.provider, step.method, step.endpoint) else 0.0

    def check_price(self, planned: PlannedStep, scopes: Sequence[LimitScope], context: SpendContext) -> None:
        """Raise CannotBePriced if a rule counts a model call whose price is unknown."""
        if not planned.calls_model:
            return
        rules = [(rule, owner) for owner, limits in scopes if (rule := first_unpriced(limits, context)) is not None]
        if rules and (self._pricer is None or not self._pricer.can_price(planned)):
            raise unpriced(*rules[0], context)

    def learn(self, planned: PlannedStep, usd: float) -> None:
        self._averages.add(_price_key(planned), usd)


class GatewayAdmission:
    """Implement `relay.interfaces.Admission`: the slots and reservations that an event holds until `settle`."""

    def __init__(
        self,
        limiter: GatewayLimiter,
        scopes: list[LimitScope],
        metadata: Metadata | None,
        held_slots: list[Callable[[], None]],
    ) -> None:
        self._limiter = limiter
        self._scopes = scopes
        self._metadata = metadata
        self._held_slots = held_slots
        self._reservations: dict[str, BudgetReservation] = {}
        """By budget key."""
        self._reserved_for: PlannedStep | None = None
        """The step of the most recent reservation."""
        self._has_counted_call = True
        """True if the windows already count the next call; `admit` counts the first one."""

    async def acquire(self, planned: PlannedStep) -> Callable[[], None]:
        """Reserve money, then wait for a slot: an event that waits for money must not hold a slot."""
        self._limiter.check_price(planned, self._scopes, self._context(planned))
        if not self._has_counted_call:
            await self._limiter.count(self._scopes)
            self._has_counted_call = True
        await self._reserve(planned)
        held_slots = await self._acquire_provider_slots(planned.provider.slug)
        self._has_counted_call = False
        return partial(release, held_slots)

    def settle(self, charges: Sequence[Charge]) -> None:
        release(self._held_slots)
        charged: dict[str, tuple[Budget, float]] = {}
        for planned, cost in charges:
            for budget in self._charged_budgets(planned, cost.charged_usd):
                charged[budget.key] = budget, charged.get(budget.key, (budget, 0.0))[1] + cost.charged_usd
        settled = [(held, charged[key][1] if key in charged else 0.0) for key, held in self._reservations.items()]
        for key, (budget, usd) in charged.items():
            if key not in self._reservations:
                settled += [(reservation, usd) for reservation in reservations_of([budget], 0.0, time.time())]
        if settled:
            self._limiter.reservations.settle(settled)

    def _charged_budgets(self, planned: PlannedStep, usd: float) -> list[Budget]:
        budgets = list(self._budgets(planned)) if usd else []
        if budgets:
            self._limiter.learn(planned, usd)
        return budgets

    async def _acquire_provider_slots(self, slug: str) -> list[Callable[[], None]]:
        held_slots: list[Callable[[], None]] = []
        try:
            for owner, limits in self._scopes:
                if limit := limits.max_concurrent_by_provider.get(slug):
                    whose = f"{slug}, as {owner} may call it"
                    held_slots.append(
                        await self._limiter.slots.acquire((owner, slug), limit, limits.max_wait_ms, whose)
                    )
        except BaseException:
            release(held_slots)
            raise
        return held_slots

    async def _reserve(self, planned: PlannedStep) -> None:
        """Reserve money for a step. A retry, or a step that costs no more, uses the existing reservation."""
        budgets = list(self._budgets(planned))
        if not budgets or planned is self._reserved_for:
            return
        usd = self._limiter.estimated_usd(planned)
        insufficient = [
            budget for budget in budgets if (held := self._reservations.get(budget.key)) is None or held.usd < usd
        ]
        if released := [
            self._reservations.pop(budget.key) for budget in insufficient if budget.key in self._reservations
        ]:
            self._limiter.reservations.settle([(reservation, 0.0) for reservation in released])
        if insufficient:
            for reservation in await self._limiter.reservations.reserve(insufficient, usd):
                self._reservations[reservation.window[0]] = reservation
        self._reserved_for = planned

    def _context(self, planned: PlannedStep) -> SpendContext:
        return SpendContext(self._metadata, planned.provider.slug, planned.model)

    def _budgets(self, planned: PlannedStep) -> Iterator[Budget]:
        context = self._context(planned)
        for scope in self._scopes:
            if scope.limits.spend:
                yield from matching_budgets(scope.owner, scope.limits.spend, context)


def scopes_of(gateway: Gateway, token_name: str) -> Iterator[LimitScope]:
    """Yield the scopes that limit anything, the token's first.

    The configured gateway name is the owner: a gateway for any name has one limit for all names.
    """
    token = gateway.token(token_name) if token_name else None
    if token is not None and _is_limited(token.limits):
        yield LimitScope(Owner(gateway.name, token.name), token.limits)
    if _is_limited(gateway.limits):
        yield LimitScope(Owner(gateway.name), gateway.limits)


def has_budgets(config: Configuration) -> bool:
    """Return True if any gateway or token has a spend limit."""
    gateways = config.gateways.values()
    limits = [gateway.limits for gateway in gateways]
    limits += [token.limits for gateway in gateways for token in gateway.tokens]
    return any(owned.spend for owned in limits)


def release(held_slots: Sequence[Callable[[], None]]) -> None:
    for release_slot in held_slots:
        release_slot()


def _is_limited(limits: Limits) -> bool:
    return bool(limits.rate or limits.spend or limits.max_concurrent or limits.max_concurrent_by_provider)


def _price_key(planned: PlannedStep) -> tuple[str, str | None]:
    return planned.target.base, planned.model
