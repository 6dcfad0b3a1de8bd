"""What an event cost, as far as it is known or can be guessed."""

from dataclasses import replace
from typing import Final

from bridge.errors import BridgeError
from bridge.policy.estimates import of_cut
from bridge.relay.entry import Cost
from bridge.relay.event import Event
from bridge.relay.plan import PlannedStep
from bridge.relay.services import Pricer

ESTIMATED: Final = "the cost is an estimate: the stream did not tell all of its usage"


def cost_of(event: Event, planned: PlannedStep, error: BridgeError | None) -> Cost | None:
    """None is unknown. An estimate is marked, and warned of."""
    record, pricer = event.record, event.shared.services.pricer
    if record.cached:
        return Cost(0.0, "cache")
    if pricer is None:
        return None if record.told_cost is None else Cost(record.told_cost, "provider")
    if error is not None and event.told is None and record.usage is None and record.told_cost is None:
        return None  # it came to nothing
    cost = pricer.cost(planned, record.usage, record.told_cost)
    return _estimated(event, planned, pricer, cost) if _is_untold(event, cost, error) else cost


def _is_untold(event: Event, cost: Cost | None, error: BridgeError | None) -> bool:
    """Whether a stream of items went out, of which was not told what it cost; or not all of it, for it was cut."""
    if event.told is None or not event.told.items:
        return False
    if cost is None:
        return True
    return error is not None and event.record.usage is not None and event.record.told_cost is None


def _estimated(event: Event, planned: PlannedStep, pricer: Pricer, known: Cost | None) -> Cost | None:
    record = event.record
    usage = of_cut(record.usage, len(planned.step.body), record.answer_bytes, record.chunks)
    cost = pricer.cost(planned, usage, None)
    if cost is None or cost == known:
        return known
    record.warnings.append(ESTIMATED)
    return replace(cost, estimated=True)
