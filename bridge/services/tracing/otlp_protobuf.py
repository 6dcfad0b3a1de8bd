"""Export spans with an exporter of OpenTelemetry's SDK, in the format of that exporter. Needs the extra `otel`."""

from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bridge import __version__
from bridge.services.tracing.spans import Span

SCOPE: Final = InstrumentationScope("bridge", __version__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)


class SdkExporter:
    """Implements `batching.Exporter`; owns the SDK's exporter."""

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource
        self.shutdown = exporter.shutdown

    def export(self, spans: Sequence[Span]) -> SpanExportResult:
        return self._exporter.export([self._readable(span) for span in spans])

    def _readable(self, span: Span) -> ReadableSpan:
        """Return the span as the SDK's own type. It is constructed directly: starting and ending a span with the SDK's
        tracer takes ten times as long, and the tracer accepts no trace id from outside.
        """
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=None
            if span.parent_id is None
            else _context(span.trace_id, span.parent_id, is_remote=span.has_remote_parent),
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.CLIENT,
            instrumentation_scope=SCOPE,
            status=_UNSET if span.failure is None else Status(StatusCode.ERROR, span.failure),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )


def _context(trace_id: int, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote, _SAMPLED)
