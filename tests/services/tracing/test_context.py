"""Test the choice of the trace of an event."""

import pytest

from bridge.services.tracing.context import TraceContext, context_of
from bridge.settings.step import StepSettings

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER_TRACE, OTHER_SPAN = "1" * 32, "2" * 16
NEW = 99
HEADER = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("settings", "traceparent", "expected"),
    [
        ({}, "", (NEW, None, True)),
        ({}, HEADER, (TRACE, SPAN, True)),
        ({}, f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN, False)),
        ({}, f"00-{TRACE}-{SPAN}-03", (TRACE, SPAN, True)),
        ({}, f"cc-{TRACE}-{SPAN}-01-what-the-future-will-bring", (TRACE, SPAN, True)),
        ({"otel_trace_id": OTHER_TRACE}, "", (OTHER_TRACE, None, True)),
        ({"otel_trace_id": OTHER_TRACE}, HEADER, (OTHER_TRACE, None, True)),
        ({"otel_trace_id": OTHER_TRACE, "otel_parent_span_id": OTHER_SPAN}, HEADER, (OTHER_TRACE, OTHER_SPAN, True)),
        ({"otel_trace_id": OTHER_TRACE.upper()}, f"00-{TRACE}-{SPAN}-00", (OTHER_TRACE, None, True)),
        ({"otel_parent_span_id": OTHER_SPAN}, HEADER, (TRACE, OTHER_SPAN, True)),
        ({"otel_parent_span_id": OTHER_SPAN}, "", (NEW, None, True)),
    ],
)
def test_the_settings_take_precedence_over_the_header(
    settings: dict[str, str], traceparent: str, expected: tuple[str | int, str | None, bool]
) -> None:
    trace, parent, sampled = expected
    found = context_of(StepSettings(**settings), traceparent, NEW)
    assert found == TraceContext(
        int(trace, 16) if isinstance(trace, str) else trace, int(parent, 16) if parent else None, sampled
    )


@pytest.mark.parametrize(
    "traceparent",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0",
        f" {HEADER}",
        f"{HEADER}\n",
        "x" * 100_000,
    ],
)
def test_a_malformed_header_is_ignored(traceparent: str) -> None:
    assert context_of(StepSettings(), traceparent, NEW) == TraceContext(NEW, None, sampled=True)
