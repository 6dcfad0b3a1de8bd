"""Compute the cost of an event: reported, priced or estimated."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import Final

from bridge.errors import BridgeError
from bridge.formats.stream_reader import Usage
from bridge.policy.cost_estimates import cut_stream_usage
from bridge.policy.reported import MAX_TIMES_ESTIMATE, MAX_TOKENS, Reported, bounded_usage, reported_usd
from bridge.relay.context import RunningEvent
from bridge.relay.event_state import EventState, Streamed
from bridge.relay.interfaces import Charge, Pricer
from bridge.relay.plan import PlannedStep
from bridge.relay.summary import Cost

ESTIMATED: Final = "the cost is an estimate: the stream did not report all of its usage"
MANY_TOKENS: Final = f"the provider reported more than {MAX_TOKENS} tokens; no more are counted"
HIGH_COST: Final = (
    f"the provider reported a cost of more than {MAX_TIMES_ESTIMATE} times the estimate; no more is charged"
)


def charges_of(
    event: RunningEvent, steps: Sequence[PlannedStep], planned: PlannedStep, error: BridgeError | None
) -> list[Charge]:
    """Return the cost of the answer of step `planned`, and of each stream that broke before it.

    Unknown costs are left out. Estimates and capped costs are marked, and a warning is added for them.
    """
    charges = list(_dropped(event, steps))
    cost = _cost_of(event, planned, error)
    if cost is not None:
        charges.append((planned, cost))
    _warn(event.state, [cost for _, cost in charges])
    return charges


def total(charges: Sequence[Charge]) -> Cost | None:
    """Return the sum of the charges, with the source of the last; None if the cost is unknown."""
    return reduce(lambda sum_, cost: cost.plus(sum_), (cost for _, cost in charges)) if charges else None


def _dropped(event: RunningEvent, steps: Sequence[PlannedStep]) -> Iterator[Charge]:
    """Yield the charges of streams that a later answer replaced: the provider charges for them as well."""
    for streamed in event.state.dropped:
        planned, usage = steps[streamed.head.step], streamed.usage
        if streamed.cached:
            continue
        cost = _price(event, planned, usage and bounded_usage(usage), streamed.reported, streamed, is_cut=True)
        if cost is not None:
            yield planned, cost


def _cost_of(event: RunningEvent, planned: PlannedStep, error: BridgeError | None) -> Cost | None:
    state, streamed = event.state, event.state.streamed
    _bound_usage(state)
    if state.cached:
        return Cost(0.0, "cache")
    if error is not None and streamed is None and state.usage is None and not state.reported:
        return None  # nothing was received
    return _price(event, planned, state.usage, state.reported, streamed, is_cut=error is not None)


def _price(
    event: RunningEvent,
    planned: PlannedStep,
    usage: Usage | None,
    reported: Reported,
    streamed: Streamed | None,
    *,
    is_cut: bool,
) -> Cost | None:
    """Return the cost of one answer. `streamed` is set if it was a stream."""
    pricer, step = event.runtime.services.pricer, planned.step
    usd = reported_usd(planned.provider, step.method, step.endpoint, reported)
    if pricer is None:
        return None if usd is None else Cost(usd, "provider")
    cost = _cost(pricer, planned, usage, reported)
    if usd is None and streamed is not None and streamed.head.items and (is_cut or _is_unreported(usage)):
        return _estimated(planned, pricer, usage, streamed, cost)
    return cost


def _is_unreported(usage: Usage | None) -> bool:
    """Return True if a token count is missing. A client's price does not change that."""
    return usage is None or usage.input_tokens is None or usage.output_tokens is None


def _estimated(
    planned: PlannedStep, pricer: Pricer, usage: Usage | None, streamed: Streamed, exact: Cost | None
) -> Cost | None:
    request_bytes = len(planned.step.readable or planned.step.body)
    estimated = cut_stream_usage(usage, request_bytes, streamed.answer_bytes, streamed.chunks)
    cost = _cost(pricer, planned, estimated, {})
    return exact if cost is None or cost == exact else replace(cost, estimated=True)


def _cost(pricer: Pricer, planned: PlannedStep, usage: Usage | None, reported: Reported) -> Cost | None:
    return pricer.claimed(planned, usage, pricer.known(planned, usage, reported))


def _bound_usage(state: EventState) -> None:
    """Cap the token counts at MAX_TOKENS, and add a warning if a count was above."""
    if state.usage is None or (bounded := bounded_usage(state.usage)) is state.usage:
        return
    state.usage = bounded
    state.warnings.append(MANY_TOKENS)


def _warn(state: EventState, costs: Sequence[Cost]) -> None:
    if any(cost.estimated for cost in costs):
        state.warnings.append(ESTIMATED)
    if any(cost.is_capped for cost in costs):
        state.warnings.append(HIGH_COST)
