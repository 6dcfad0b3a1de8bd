"""Traces: spans of events for the collectors that a gateway, or the environment, names. The work is `exporting`'s."""

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from bridge.relay.interfaces import Sample
from bridge.relay.summary import EventSummary

if TYPE_CHECKING:
    from bridge.services.tracing.exporters import SpanExporters

log = logging.getLogger("bridge.traces")

MISSING_EXTRA: Final = "spans need the extra otel: pip install 'universal-bridge[otel]'"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """An observer of events. OpenTelemetry's SDK is not imported before somebody wants spans, which is costly."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._everywhere = _names_collector(environ)
        self._exporting: SpanExporters | None = None
        self._is_missing = False

    @property
    def everywhere(self) -> bool:
        """The environment names a collector, for the spans of all gateways."""
        return self._everywhere

    def start(self) -> None:
        """Before the first event, where it is known that somebody wants spans.

        Raises ImportError without the extra, ValueError for an environment that the SDK does not take.
        """
        from bridge.services.tracing.exporters import SpanExporters

        self._exporting = SpanExporters(everywhere=self._everywhere)

    def on_event_end(self, summary: EventSummary) -> None:
        if self._exporting is None and summary.otel and not self._is_missing:
            self._start_late()
        if self._exporting is not None:
            self._exporting.on_event_end(summary)

    def samples(self) -> Iterator[Sample]:
        if self._exporting is not None:
            yield from self._exporting.samples()

    async def close(self) -> None:
        if self._exporting is not None:
            await self._exporting.close()

    def _start_late(self) -> None:
        """A configuration that was read again is the first to want spans."""
        try:
            self.start()
        except ImportError:
            self._is_missing = True
            log.warning(MISSING_EXTRA)


def _names_collector(environ: Mapping[str, str]) -> bool:
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not is_off and any(environ.get(name) for name in _ENDPOINTS)
