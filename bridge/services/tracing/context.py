"""Determine the trace of an event: from the client's settings, else from the W3C header, else a new trace. Pure.

www.w3.org/TR/trace-context, section 3.2; `cf-aig-otel-trace-id` and `-parent-span-id` are Cloudflare's.
"""

import re
from dataclasses import dataclass
from typing import Final

from bridge.settings.step import StepSettings

_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    trace_id: int
    parent_id: int | None
    """The id of the parent span; None for the root span of a trace."""
    sampled: bool


def context_of(settings: StepSettings, traceparent: str, new_trace_id: int) -> TraceContext:
    """Return the trace context; `traceparent` is the header, or empty. A malformed header is ignored.

    A trace named in the settings is always recorded, regardless of the header's flag. The settings' parent belongs to
    the settings' trace, or to the header's trace if they name none.
    """
    header = _parsed(traceparent)
    parent_id = int(settings.otel_parent_span_id, 16) if settings.otel_parent_span_id else None
    if settings.otel_trace_id:
        return TraceContext(int(settings.otel_trace_id, 16), parent_id, sampled=True)
    if header is not None:
        return TraceContext(header.trace_id, parent_id or header.parent_id, header.sampled)
    return TraceContext(new_trace_id, None, sampled=True)


def _parsed(traceparent: str) -> TraceContext | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and found[5]):
        return None
    trace_id, parent_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not parent_id:
        return None
    return TraceContext(trace_id, parent_id, bool(int(found[4], 16) & _SAMPLED))
