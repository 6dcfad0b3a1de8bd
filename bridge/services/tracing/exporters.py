"""Send the spans of an event by OTLP over HTTP to the collectors of its gateway, and to that of the environment.

Needs the extra `otel`. Environment variables: opentelemetry.io/docs/specs/otel/protocol/exporter.
"""

import asyncio
from collections.abc import Iterator
from random import getrandbits
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from bridge import __version__
from bridge.config.otel import OtelExporter
from bridge.redact.text import redact_url
from bridge.relay.interfaces import Sample
from bridge.relay.summary import EventSummary
from bridge.services.metrics.definitions import SPANS
from bridge.services.tracing.batching import TIMEOUT_S, EndedEvent, Exporter, SpanBatcher
from bridge.services.tracing.context import context_of
from bridge.services.tracing.otlp_json import JsonExporter
from bridge.services.tracing.otlp_protobuf import SdkExporter
from bridge.tasks import Tasks

MAX_COLLECTORS: Final = 256
"""Each collector has a thread. Beyond this number the oldest one is closed: after a reload no gateway may name it."""

_Key = tuple[object, ...]


class SpanExporters:
    """Observes events and owns one batcher per collector, created with the first event for it."""

    def __init__(self, *, everywhere: bool) -> None:
        """With `everywhere`, spans of all gateways also go to the collector that the environment names.

        Raises ValueError if the SDK rejects the environment.
        """
        self._resource = _resource()
        self._environment_batchers = (
            (SpanBatcher("of the environment", SdkExporter(OTLPSpanExporter(), self._resource)),) if everywhere else ()
        )
        self._collectors: dict[_Key, SpanBatcher] = {}
        self._closing_tasks = Tasks()
        self._closed: list[SpanBatcher] = []

    def on_event_end(self, summary: EventSummary) -> None:
        if not summary.otel and not self._environment_batchers:
            return
        context = context_of(summary.settings, summary.traceparent, getrandbits(128) or 1)
        if context.sampled:
            event = EndedEvent(summary, context)
            for collector in (*self._environment_batchers, *map(self._batcher, summary.otel)):
                collector.put(event)

    def samples(self) -> Iterator[Sample]:
        """Yield the numbers of sent, refused and dropped spans."""
        for result in ("sent", "refused", "dropped"):
            counts = (getattr(each, result) for each in (*self._all(), *self._closed))
            yield SPANS.name, (result,), sum(counts)

    async def close(self) -> None:
        """Send the waiting spans, for at most some seconds."""
        await asyncio.gather(*(collector.close() for collector in self._all()))
        await self._closing_tasks.wait_all()

    def _all(self) -> tuple[SpanBatcher, ...]:
        return (*self._environment_batchers, *self._collectors.values())

    def _batcher(self, exporter: OtelExporter) -> SpanBatcher:
        key = (exporter.url, exporter.content_type, exporter.authorization, *exporter.headers.items())
        collector = self._collectors.get(key)
        if collector is None:
            collector = self._collectors[key] = SpanBatcher(
                redact_url(exporter.url), _exporter(exporter, self._resource)
            )
            if len(self._collectors) > MAX_COLLECTORS:
                self._close(self._collectors.pop(next(iter(self._collectors))))
        return collector

    def _close(self, collector: SpanBatcher) -> None:
        self._closed.append(collector)
        self._closing_tasks.start(collector.close(), "close a collector of spans")


def _exporter(config: OtelExporter, resource: Resource) -> Exporter:
    headers = dict(config.headers)
    if config.authorization is not None:
        headers["Authorization"] = config.authorization
    if config.content_type == "json":
        return JsonExporter(config.url, headers, TIMEOUT_S, resource)
    return SdkExporter(OTLPSpanExporter(config.url, headers=headers, timeout=TIMEOUT_S), resource)


def _resource() -> Resource:
    """Return the resource that OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES describe."""
    found = Resource.create({SERVICE_VERSION: __version__})
    is_named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: "universal-bridge"}))
