"""What is told of an event once it is over."""

from collections.abc import Sequence

from msgspec.structs import replace

from bridge.config.gateways import Gateway
from bridge.errors import BridgeError, EveryStepSkipped
from bridge.relay.entry import Bodies, Entry, Sent
from bridge.relay.plan import Ground, PlannedStep
from bridge.relay.record import Heading, Record
from bridge.settings.step import StepSettings
from bridge.wire import parsing
from bridge.wire.messages import Create, Step


def entry_of(record: Record, ground: Ground, event_id: bytes, create: Create, planned: Sequence[PlannedStep]) -> Entry:
    """Of an event whose last word is out; `planned`, and the steps that were asked for, may be empty, if it did not
    come so far."""
    heading = record.heading
    assert heading is not None
    step = create.steps[heading.step] if create.steps else None
    tried = planned[heading.step] if planned else None
    gateway = gateway_of(ground)
    return Entry(
        log_id=record.log_id,
        event_id=parsing.parse(event_id),
        account=ground.account,
        gateway=ground.gateway,
        token=ground.token,
        transport=ground.transport,
        created_at_ns=record.created_at_ns,
        duration_ms=(record.ended_at - record.began_at) * 1000,
        first_answer_ms=_ms_since(record.began_at, record.answered_at),
        added_ms=_ms_since(record.began_at, record.called_at),
        step=heading.step,
        provider=heading.provider,
        model=record.model,
        method=step.method if step else None,
        path=step.endpoint.partition("?")[0] if step else None,
        url=tried.target.base if tried else None,
        status=heading.status,
        success=record.error is None,
        code=record.error.code if record.error else None,
        reason=str(record.error) if record.error else None,
        cached=record.cached,
        byok_alias=heading.byok_alias,
        request_content_type=step.provider_headers.get("content-type", "") if step else "",
        answer_content_type=heading.content_type,
        request_bytes=len(step.body) if step else 0,
        answer_bytes=record.answer_bytes,
        chunks=record.chunks,
        usage=record.usage,
        cost=record.cost,
        attempts=record.attempts,
        attempt_times_ms=[
            ((a - record.began_at) * 1000, (b - record.began_at) * 1000) for a, b in record.attempt_times
        ],
        settings=logged(create.settings or ground.entered.settings, gateway),
        traceparent=(create.steps[0].headers.get("traceparent") if create.steps else None) or ground.traceparent,
        bodies=_bodies(record, step),
        sent=tuple(_sent(planned[step]) for step in _tried_steps(record, heading) if step < len(planned)),
        log_rows=gateway.log_rows,
        log_strategy=gateway.log_strategy,
        log_is_shared=len(gateway.tokens) > 1,
        otel=gateway.otel,
        warnings=record.warnings,
    )


def _tried_steps(record: Record, heading: Heading) -> list[int]:
    """The steps whose provider was called; and that of the request whose body is kept."""
    called = {int(str(attempt["step"])) for attempt in record.attempts if attempt.get("code") != EveryStepSkipped.code}
    return sorted(called | {heading.step})


def _sent(planned: PlannedStep) -> Sent:
    return Sent(planned.step.provider_headers, planned.step.endpoint.partition("?")[2], planned.key)


def _bodies(record: Record, step: Step | None) -> Bodies | None:
    most = record.head_bytes
    if not most or step is None:
        return None
    return Bodies(step.body[:most], b"".join(record.answer_head)[:most])


def logged(settings: StepSettings, gateway: Gateway) -> StepSettings:
    """Return an event's settings with the gateway's own choice of what is logged, where clients have none."""
    if not gateway.collect_log_locked:
        return settings
    own = gateway.settings
    return replace(settings, collect_log=own.collect_log, collect_log_payload=own.collect_log_payload)


def gateway_of(ground: Ground) -> Gateway:
    try:
        return ground.live()
    except BridgeError:  # it is gone, or the token is; the event is told of as it would have been before
        return ground.entered


def _ms_since(began_at: float, at: float | None) -> float | None:
    return None if at is None else (at - began_at) * 1000
