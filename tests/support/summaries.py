"""Make event summaries, as observers get them, with the changes of a test."""

from typing import Any

import msgspec

from bridge.formats.stream_reader import Usage
from bridge.relay.summary import EventSummary
from bridge.settings.step import StepSettings

_SUMMARY = EventSummary(
    log_id="01a1f922-c87e-7410-a065-b234aaf9e09e",
    event_id="event",
    account="account",
    gateway="gateway",
    token="",
    transport="websocket",
    created_at_ns=1_700_000_000_000_000_000,
    duration_ms=640.25,
    first_answer_ms=120.5,
    added_ms=0.5,
    step=0,
    provider="openai",
    model="gpt-4o-mini",
    method="POST",
    path="chat/completions",
    url="https://api.openai.com/v1",
    status=200,
    success=True,
    code=None,
    reason=None,
    cached=False,
    byok_alias=None,
    request_content_type="application/json",
    answer_content_type="application/json",
    request_bytes=300,
    answer_bytes=900,
    chunks=0,
    usage=Usage(12, 4, 2, 16),
    cost=None,
    attempts=[{"step": "0", "provider": "openai", "durationMs": 639, "status": 200}],
    attempt_times_ms=[(0.5, 640.0)],
    settings=StepSettings(),
    traceparent="",
    bodies=None,
    warnings=[],
    sent=(),
    log_rows=0,
    log_strategy="DELETE_OLDEST",
    log_is_shared=False,
    otel=(),
)


def event_summary(**changes: Any) -> EventSummary:
    """Return the summary of a buffered answer with these changes."""
    return msgspec.structs.replace(_SUMMARY, **changes)
