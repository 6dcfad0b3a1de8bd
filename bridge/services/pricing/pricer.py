"""Compute the cost of an event: by the gateway's price, else the provider's report, else the price list.

A client may set a price of its own, which its answer shows; the charged amount does not depend on it.
"""

from dataclasses import replace
from typing import Protocol

from bridge.formats.usage import Usage
from bridge.policy.cost_estimates import expected
from bridge.policy.reported import MAX_TIMES_ESTIMATE, UNPRICED_USD, Reported, reported_usd, reports_costs
from bridge.relay.plan import PlannedStep
from bridge.relay.summary import Cost
from bridge.services.pricing.rates import ModelPrices, custom_usd, usage_usd


class Prices(Protocol):
    def rates(self, url: str, model: str) -> ModelPrices | None:
        """Return the prices of a model at a base URL, None if they are unknown. Must be fast: every event calls it."""


class EventPricer:
    """Price an event by its requested model: the request always names it, and price lists know its aliases."""

    def __init__(self, prices: Prices | None) -> None:
        """Without `prices`, only the gateway's own price and the providers' reports are used."""
        self._prices = prices

    def known(self, planned: PlannedStep, usage: Usage | None, reported: Reported) -> Cost | None:
        if planned.price is not None and (usd := custom_usd(planned.price, usage)) is not None:
            return Cost(usd, "custom")
        step, listed = planned.step, self._listed_usd(planned, usage)
        usd = reported_usd(planned.provider, step.method, step.endpoint, reported)
        if usd is not None:
            return self._capped(planned, usd, listed)
        return None if listed is None else Cost(listed, "prices")

    def claimed(self, planned: PlannedStep, usage: Usage | None, known: Cost | None) -> Cost | None:
        custom = planned.step.settings.custom_cost
        if custom is None or custom == planned.price or (usd := custom_usd(custom, usage)) is None:
            return known
        if known is None:
            return Cost(usd, "custom", known_usd=0.0)
        return replace(known, usd=usd, source="custom", known_usd=known.usd)

    def can_price(self, planned: PlannedStep) -> bool:
        step, price = planned.step, planned.price
        if price is not None and (price.total_cost is not None or price.per_token_in is not None):
            return True
        if reports_costs(planned.provider, step.method, step.endpoint):
            return True
        if self._prices is None or planned.model is None:
            # A realtime session may name its model in its first message.
            return self._prices is not None and step.method == "GET"
        rates = self._prices.rates(planned.target.base, planned.model)
        return rates is not None and rates.input is not None

    def expected_usd(self, planned: PlannedStep) -> float | None:
        cost = self.known(planned, expected(planned.step.readable or planned.step.body), {})
        return None if cost is None else cost.usd

    def _listed_usd(self, planned: PlannedStep, usage: Usage | None) -> float | None:
        if usage is None or planned.model is None or self._prices is None:
            return None
        rates = self._prices.rates(planned.target.base, planned.model)
        return None if rates is None else usage_usd(rates, usage)

    def _capped(self, planned: PlannedStep, usd: float, listed_usd: float | None) -> Cost:
        """Return the reported cost, capped at a multiple of the estimate.

        The cap is raised to the list price of the reported tokens if that is higher.
        """
        if listed_usd is not None and usd <= listed_usd:
            return Cost(usd, "provider")  # no estimate needed
        estimate = self.expected_usd(planned)
        limit_usd = max(MAX_TIMES_ESTIMATE * (UNPRICED_USD if estimate is None else estimate), listed_usd or 0.0)
        return Cost(usd, "provider") if usd <= limit_usd else Cost(limit_usd, "provider", is_capped=True)
