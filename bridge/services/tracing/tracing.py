"""Export spans of events to the collectors that gateways or the environment name. `exporters` does the work."""

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
    """Observes events. OpenTelemetry's SDK is imported only if spans are needed, because the import is slow."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._everywhere = _names_collector(environ)
        self._exporters: SpanExporters | None = None
        self._is_missing = False

    @property
    def everywhere(self) -> bool:
        """Return True if the environment names a collector, which gets the spans of all gateways."""
        return self._everywhere

    def start(self) -> None:
        """Create the exporters. Call it before the first event if spans are needed.

        Raises ImportError without the extra `otel`, and ValueError if the SDK rejects the environment.
        """
        from bridge.services.tracing.exporters import SpanExporters

        self._exporters = SpanExporters(everywhere=self._everywhere)

    def on_event_end(self, summary: EventSummary) -> None:
        if self._exporters is None and summary.otel and not self._is_missing:
            self._start_late()
        if self._exporters is not None:
            self._exporters.on_event_end(summary)

    def samples(self) -> Iterator[Sample]:
        if self._exporters is not None:
            yield from self._exporters.samples()

    async def close(self) -> None:
        if self._exporters is not None:
            await self._exporters.close()

    def _start_late(self) -> None:
        """Create the exporters after a reload that configures the first collector."""
        try:
            self.start()
        except ImportError:
            self._is_missing = True
            log.warning(MISSING_EXTRA)


def _names_collector(environ: Mapping[str, str]) -> bool:
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not is_off and any(environ.get(name) for name in _ENDPOINTS)
