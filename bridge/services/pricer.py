"""What an event cost: what the client says, else what the provider says, else what the price list says, else None."""

from typing import Protocol

from bridge.policy.pricing import Rates, custom_usd, usage_usd
from bridge.relay.entry import Cost
from bridge.relay.plan import PlannedStep
from bridge.wire.usage import Usage


class Prices(Protocol):
    def rates(self, url: str, model: str) -> Rates | None:
        """Of a model behind a base URL, None where they are not known. Cheap, for every event asks."""


class PricerOfEvents:
    """The model is the one that was asked for: the request names it whatever came of it, and lists know its aliases."""

    def __init__(self, prices: Prices | None) -> None:
        """Without `prices` only what client and provider say counts."""
        self._prices = prices

    def cost(self, planned: PlannedStep, usage: Usage | None, told: float | None) -> Cost | None:
        """`told` is the provider's own figure."""
        custom = planned.step.settings.custom_cost
        known = self._known(planned, usage, told)
        if custom is None or custom == planned.price or (usd := custom_usd(custom, usage)) is None:
            return known
        return Cost(usd, "custom", known_usd=known.usd if known is not None else 0.0)

    def _known(self, planned: PlannedStep, usage: Usage | None, told: float | None) -> Cost | None:
        """To the gateway, whatever the client says."""
        if planned.price is not None and (usd := custom_usd(planned.price, usage)) is not None:
            return Cost(usd, "custom")
        if told is not None:
            return Cost(told, "provider")
        if usage is None or planned.model is None or self._prices is None:
            return None
        rates = self._prices.rates(planned.target.base, planned.model)
        usd = None if rates is None else usage_usd(rates, usage)
        return None if usd is None else Cost(usd, "prices")
