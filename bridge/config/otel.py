"""Exporters of OpenTelemetry spans."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ContentType = Literal["json", "protobuf"]


@dataclass(frozen=True, slots=True)
class OtelExporter:
    """A collector that receives OTLP over HTTP. Cloudflare's names: ai-gateway/observability/otel-integration."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """May contain secrets in plain text."""
    authorization: str | None = field(default=None, repr=False)
    """The complete value of that header."""
    content_type: ContentType = "json"
