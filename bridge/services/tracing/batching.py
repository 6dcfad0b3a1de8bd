"""Queue ended events for one collector, and count the spans that are sent, refused and dropped.

The SDK's batch processor owns the thread, which also converts the events to spans. Needs the extra `otel`.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from bridge.relay.summary import EventSummary
from bridge.services.tracing.context import TraceContext
from bridge.services.tracing.spans import Span, spans_of

log = logging.getLogger("bridge.traces")

# The SDK logs a failing collector with every batch; `_MonitoredExporter` logs it once.
logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)

MAX_SPANS: Final = 4096
MAX_BODY_BYTES: Final = 32 << 20
"""Maximal size of the bodies of waiting events."""
BATCH_EVENTS: Final = 256
LINGER_MS: Final = 1000
"""Maximal wait of a span for others to be sent with."""
TIMEOUT_S: Final = 5.0
"""Timeout of the collector for a batch."""
CLOSING_S: Final = 3.0
"""Maximal time that the end of the process waits for unsent spans."""


_PLACEHOLDER_CONTEXT: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
"""A context that belongs to no trace: the SDK's queue accepts only sampled spans."""


class EndedEvent(ReadableSpan):
    """An event queued for the exporter's thread, which makes its spans: that takes longer than all other work at the
    end of an event. It is a ReadableSpan only because the SDK's queue accepts nothing else.
    """

    def __init__(self, summary: EventSummary, trace: TraceContext) -> None:
        self._context = _PLACEHOLDER_CONTEXT
        self._summary = summary
        self._trace = trace
        self.span_count = 1 + len(summary.attempts)
        """The number of spans of the event."""
        bodies = summary.bodies
        self.body_bytes = len(bodies.request) + len(bodies.answer) if bodies else 0
        """The size of the bodies that it holds."""

    def spans(self) -> list[Span]:
        return spans_of(self._summary, self._trace)


class Exporter(Protocol):
    """Sends spans to a collector. One thread calls `export`; any thread may call `shutdown`."""

    def export(self, spans: Sequence[Span]) -> SpanExportResult: ...

    def shutdown(self) -> None:
        """Stop retrying the batch that is being sent. Any thread may call it."""


class SpanBatcher:
    """Queues events and counts their spans: `sent`, `refused` by the collector, `dropped` because too many waited."""

    def __init__(self, name: str, exporter: Exporter, *, max_spans: int = MAX_SPANS) -> None:
        """Take ownership of the exporter; `name` identifies the collector in the log."""
        self._exporter = _MonitoredExporter(name, exporter)
        self._max_spans = max_spans
        self._accepted_spans = self._accepted_bytes = 0
        self.dropped = 0
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=2 * max_spans,  # never full, because `put` checks the bound
            schedule_delay_millis=LINGER_MS,
            max_export_batch_size=min(BATCH_EVENTS, max_spans),
            export_timeout_millis=TIMEOUT_S * 1000,
        )

    @property
    def sent(self) -> int:
        return self._exporter.sent

    @property
    def refused(self) -> int:
        return self._exporter.refused

    def put(self, event: EndedEvent) -> None:
        """Queue an event, or drop it if too many wait. Does not block."""
        exporter = self._exporter
        has_room = self._accepted_spans + event.span_count - exporter.processed_spans <= self._max_spans
        if not has_room or self._accepted_bytes + event.body_bytes - exporter.processed_bytes > MAX_BODY_BYTES:
            self.dropped += event.span_count
            return
        self._accepted_spans += event.span_count
        self._accepted_bytes += event.body_bytes
        self._processor.on_end(event)

    async def close(self) -> None:
        """Send the waiting spans for at most `CLOSING_S`, then drop the rest."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        if self._exporter.is_failing:
            self._exporter.give_up()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no types there
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(ended.set)

        # A daemon thread, because threads of the loop's pool would delay the exit if the collector hangs.
        threading.Thread(target=shut_down, name="bridge-traces-end", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSING_S):
                await ended.wait()
        except TimeoutError:
            self._exporter.give_up()


class _MonitoredExporter(SpanExporter):
    """Wraps the exporter: counts its results, and logs when the collector begins or stops to fail."""

    def __init__(self, name: str, exporter: Exporter) -> None:
        self._name = name
        self._exporter = exporter
        self._has_ended = False
        self.is_failing = False
        """True if the collector has refused the last batch."""
        self.sent = self.refused = self.processed_spans = self.processed_bytes = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans of the queued events."""
        events = [event for event in spans if isinstance(event, EndedEvent)]
        count = sum(event.span_count for event in events)
        result = SpanExportResult.FAILURE if self._has_ended else self._export(events)
        self.processed_spans += count
        self.processed_bytes += sum(event.body_bytes for event in events)
        if result is SpanExportResult.SUCCESS:
            self.sent += count
        else:
            self.refused += count
        return result

    def shutdown(self) -> None:
        if not self._has_ended:
            self.give_up()

    def give_up(self) -> None:
        """Stop retrying the current batch, and refuse all further ones. Any thread may call it."""
        self._has_ended = True
        self._exporter.shutdown()

    def _export(self, events: Sequence[EndedEvent]) -> SpanExportResult:
        try:
            result = self._exporter.export([span for event in events for span in event.spans()])
        except Exception:
            log.exception("unhandled exception while exporting spans")
            result = SpanExportResult.FAILURE
        was_failing, self.is_failing = self.is_failing, result is not SpanExportResult.SUCCESS
        if self.is_failing and not was_failing:
            log.warning("collector refuses spans; they are lost", extra={"fields": {"collector": self._name}})
        elif was_failing and not self.is_failing:
            fields = {"collector": self._name, "lost": self.refused}
            log.info("collector accepts spans again", extra={"fields": fields})
        return result
