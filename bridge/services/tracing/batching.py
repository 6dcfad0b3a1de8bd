"""One collector of spans: a bounded queue before it, the SDK's thread that empties it, and what became of all.

What waits are events: their spans are made by that thread.

Needs the extra `otel`.
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

# What they have to say of a collector that does not answer they say of every batch; we say it once.
logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)

MAX_SPANS: Final = 4096
MAX_BODY_BYTES: Final = 32 << 20
"""What their bodies may take besides."""
BATCH_EVENTS: Final = 256
LINGER_MS: Final = 1000
"""How long a span waits for others to be sent with."""
TIMEOUT_S: Final = 5.0
"""How long the collector may take for a batch."""
CLOSING_S: Final = 3.0
"""How long the end of the process waits for what has not been sent."""


_ON_ITS_WAY: Final = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
"""Of no trace; but the SDK's queue takes only what is sampled."""


class EndedEvent(ReadableSpan):
    """An event on its way to an exporter's thread, which makes its spans: that takes longer than all else that is done
    for an event when it ends. A span itself only for the SDK's queue, which takes nothing else.
    """

    def __init__(self, summary: EventSummary, trace: TraceContext) -> None:
        self._context = _ON_ITS_WAY
        self._entry = summary
        self._trace = trace
        self.span_count = 1 + len(summary.attempts)
        """How many spans it becomes."""
        bodies = summary.bodies
        self.body_bytes = len(bodies.request) + len(bodies.answer) if bodies else 0
        """Of the bodies that it holds, in bytes."""

    def spans(self) -> list[Span]:
        return spans_of(self._entry, self._trace)


class Exporter(Protocol):
    """Sends spans to a collector. Called by one thread, but for `shutdown`."""

    def export(self, spans: Sequence[Span]) -> SpanExportResult: ...

    def shutdown(self) -> None:
        """By any thread: what is being sent is not tried again."""


class SpanBatcher:
    """Counts spans: `sent`, `refused` by the collector, `dropped` because too many waited."""

    def __init__(self, name: str, exporter: Exporter, *, max_spans: int = MAX_SPANS) -> None:
        """`name` is for the log. Owns the exporter."""
        self._exporter = _MonitoredExporter(name, exporter)
        self._max_spans = max_spans
        self._put_spans = self._put_bytes = 0
        self.dropped = 0
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=2 * max_spans,  # never full: `put` looks before
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
        """Does not block."""
        watched = self._exporter
        has_room = self._put_spans + event.span_count - watched.taken_spans <= self._max_spans
        if not has_room or self._put_bytes + event.body_bytes - watched.sent_bytes > MAX_BODY_BYTES:
            self.dropped += event.span_count
            return
        self._put_spans += event.span_count
        self._put_bytes += event.body_bytes
        self._processor.on_end(event)

    async def close(self) -> None:
        """Send what waits, for at most `CLOSING_S`; what is left then is given up."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        if self._exporter.is_lost:
            self._exporter.give_up()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no types there
            with suppress(RuntimeError):  # the loop did not wait for us
                loop.call_soon_threadsafe(ended.set)

        # A daemon, and not the loop's own pool: nobody is to wait for a collector that hangs, not even at exit.
        threading.Thread(target=shut_down, name="bridge-traces-end", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSING_S):
                await ended.wait()
        except TimeoutError:
            self._exporter.give_up()


class _MonitoredExporter(SpanExporter):
    """The exporter as its thread calls it: what it says is counted, and logged when it changes."""

    def __init__(self, name: str, exporter: Exporter) -> None:
        self._name = name
        self._exporter = exporter
        self._has_ended = False
        self.is_lost = False
        """The last batch was not taken."""
        self.sent = self.refused = self.taken_spans = self.sent_bytes = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """What it is given are events."""
        events = [each for each in spans if isinstance(each, EndedEvent)]
        count = sum(event.span_count for event in events)
        result = SpanExportResult.FAILURE if self._has_ended else self._exported(events)
        self.taken_spans += count
        self.sent_bytes += sum(event.body_bytes for event in events)
        if result is SpanExportResult.SUCCESS:
            self.sent += count
        else:
            self.refused += count
        return result

    def shutdown(self) -> None:
        if not self._has_ended:
            self.give_up()

    def give_up(self) -> None:
        """Called from any thread: what is being sent is not tried again, and the rest not at all."""
        self._has_ended = True
        self._exporter.shutdown()

    def _exported(self, events: Sequence[EndedEvent]) -> SpanExportResult:
        try:
            result = self._exporter.export([span for event in events for span in event.spans()])
        except Exception:
            log.exception("spans could not be exported for a reason that nobody expected")
            result = SpanExportResult.FAILURE
        was_lost, self.is_lost = self.is_lost, result is not SpanExportResult.SUCCESS
        if self.is_lost and not was_lost:
            log.warning(
                "spans are lost: their collector does not take them", extra={"fields": {"collector": self._name}}
            )
        elif was_lost and not self.is_lost:
            fields = {"collector": self._name, "lost": self.refused}
            log.info("the collector of spans takes them again", extra={"fields": fields})
        return result
