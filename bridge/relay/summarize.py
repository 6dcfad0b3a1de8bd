"""Build the summary of an event that has ended."""

from collections.abc import Sequence

from msgspec.structs import replace

from bridge.config.gateways import Gateway
from bridge.errors import BridgeError, EveryStepSkipped
from bridge.formats import json_parse
from bridge.protocol.messages import Create, ProviderStep
from bridge.relay.event_state import EventState, ResponseHead
from bridge.relay.plan import PlannedStep, RequestContext
from bridge.relay.summary import BodyPreviews, EventSummary, SentSecrets
from bridge.settings.step import StepSettings


def summarize(
    state: EventState, context: RequestContext, event_id: bytes, create: Create, planned: Sequence[PlannedStep]
) -> EventSummary:
    """Return the summary of an event whose last frame was sent.

    `planned` and the requested steps may be empty if the event failed early.
    """
    head = state.head
    assert head is not None
    step = create.steps[head.step] if create.steps else None
    tried = planned[head.step] if planned else None
    gateway = gateway_of(context)
    return EventSummary(
        log_id=state.log_id,
        event_id=json_parse.parse(event_id),
        account=context.account,
        gateway=context.gateway,
        token=context.token,
        transport=context.transport,
        created_at_ns=state.created_at_ns,
        duration_ms=(state.ended_at - state.began_at) * 1000,
        first_answer_ms=_ms_since(state.began_at, state.answered_at),
        added_ms=_ms_since(state.began_at, state.called_at),
        step=head.step,
        provider=head.provider,
        model=state.model,
        method=step.method if step else None,
        path=step.endpoint.partition("?")[0] if step else None,
        url=tried.target.base if tried else None,
        status=head.status,
        success=state.error is None,
        code=state.error.code if state.error else None,
        reason=str(state.error) if state.error else None,
        cached=state.cached,
        byok_alias=head.byok_alias,
        request_content_type=step.provider_headers.get("content-type", "") if step else "",
        answer_content_type=head.content_type,
        request_bytes=len(step.body) if step else 0,
        answer_bytes=state.answer_bytes,
        chunks=state.chunks,
        usage=state.usage,
        cost=state.cost,
        attempts=state.attempts,
        attempt_times_ms=[((a - state.began_at) * 1000, (b - state.began_at) * 1000) for a, b in state.attempt_times],
        settings=logged(create.settings or context.gateway_at_connect.settings, gateway),
        traceparent=(create.steps[0].headers.get("traceparent") if create.steps else None) or context.traceparent,
        bodies=_body_previews(state, step),
        sent=tuple(_sent_secrets(planned[step]) for step in _tried_steps(state, head) if step < len(planned)),
        log_rows=gateway.log_rows,
        log_strategy=gateway.log_strategy,
        log_is_shared=len(gateway.tokens) > 1,
        otel=gateway.otel,
        warnings=state.warnings,
    )


def _tried_steps(state: EventState, head: ResponseHead) -> list[int]:
    """Return the steps whose provider was called, and the step whose request body is kept."""
    if len(state.attempts) == 1 and state.attempts[0]["step"] == str(head.step):
        return [head.step]
    called = {int(str(attempt["step"])) for attempt in state.attempts if attempt.get("code") != EveryStepSkipped.code}
    return sorted(called | {head.step})


def _sent_secrets(planned: PlannedStep) -> SentSecrets:
    return SentSecrets(planned.step.provider_headers, planned.step.endpoint.partition("?")[2], planned.key)


def _body_previews(state: EventState, step: ProviderStep | None) -> BodyPreviews | None:
    max_bytes = state.head_bytes
    if not max_bytes or step is None:
        return None
    return BodyPreviews(step.body[:max_bytes], b"".join(state.answer_head)[:max_bytes])


def logged(settings: StepSettings, gateway: Gateway) -> StepSettings:
    """Return the settings with the gateway's choice of what is logged, if clients may not override it."""
    if not gateway.collect_log_locked:
        return settings
    fixed = gateway.settings
    return replace(settings, collect_log=fixed.collect_log, collect_log_payload=fixed.collect_log_payload)


def gateway_of(context: RequestContext) -> Gateway:
    try:
        return context.current_gateway()
    except BridgeError:  # the gateway or the token was removed meanwhile
        return context.gateway_at_connect


def _ms_since(began_at: float, at: float | None) -> float | None:
    return None if at is None else (at - began_at) * 1000
