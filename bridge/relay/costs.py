"""What an event cost, as far as it is known or can be guessed."""

from dataclasses import replace
from typing import Final

from bridge.errors import BridgeError
from bridge.policy.estimates import of_cut
from bridge.policy.reported import MAX_TIMES_ESTIMATE, MAX_TOKENS, Reported, bounded_usage, reported_usd
from bridge.relay.entry import Cost
from bridge.relay.event import Event
from bridge.relay.plan import PlannedStep
from bridge.relay.record import Record
from bridge.relay.services import Pricer
from bridge.wire.dialects import Usage

ESTIMATED: Final = "the cost is an estimate: the stream did not tell all of its usage"
MANY_TOKENS: Final = f"the provider reported more than {MAX_TOKENS} tokens; no more are counted"
HIGH_COST: Final = (
    f"the provider reported a cost of more than {MAX_TIMES_ESTIMATE} times the estimate; no more is charged"
)


def cost_of(event: Event, planned: PlannedStep, error: BridgeError | None) -> Cost | None:
    """None is unknown. An estimate, and what was not believed, is marked and warned of."""
    record, pricer = event.record, event.shared.services.pricer
    _bound_usage(record)
    if record.cached:
        return Cost(0.0, "cache")
    if error is not None and event.told is None and record.usage is None and not record.reported:
        return None  # it came to nothing
    usd = _reported_usd(planned, record)
    if pricer is None:
        return None if usd is None else Cost(usd, "provider")
    cost = _cost(pricer, planned, record.usage, record.reported)
    if usd is None and _is_untold(event, error):
        cost = _estimated(event, planned, pricer, cost)
    if cost is not None and cost.is_capped:
        record.warnings.append(HIGH_COST)
    return cost


def _bound_usage(record: Record) -> None:
    """Counts no more tokens than can be meant, and warns of it."""
    if record.usage is None or (bounded := bounded_usage(record.usage)) is record.usage:
        return
    record.usage = bounded
    record.warnings.append(MANY_TOKENS)


def _cost(pricer: Pricer, planned: PlannedStep, usage: Usage | None, reported: Reported) -> Cost | None:
    return pricer.claimed(planned, usage, pricer.known(planned, usage, reported))


def _reported_usd(planned: PlannedStep, record: Record) -> float | None:
    step = planned.step
    return reported_usd(planned.provider, step.method, step.endpoint, record.reported)


def _is_untold(event: Event, error: BridgeError | None) -> bool:
    """True if a stream of items went out that did not tell its tokens; or not all of them, for it was cut.

    Whatever price the client names: it would hide that the tokens are not known.
    """
    if event.told is None or not event.told.items:
        return False
    usage = event.record.usage
    return error is not None or usage is None or usage.input_tokens is None or usage.output_tokens is None


def _estimated(event: Event, planned: PlannedStep, pricer: Pricer, exact: Cost | None) -> Cost | None:
    record = event.record
    request_bytes = len(planned.step.readable or planned.step.body)
    usage = of_cut(record.usage, request_bytes, record.answer_bytes, record.chunks)
    cost = _cost(pricer, planned, usage, {})
    if cost is None or cost == exact:
        return exact
    record.warnings.append(ESTIMATED)
    return replace(cost, estimated=True)
