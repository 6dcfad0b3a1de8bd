"""Where a gateway's spans go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ContentType = Literal["json", "protobuf"]


@dataclass(frozen=True, slots=True)
class OtelExporter:
    """One collector, spoken to in OTLP over HTTP. Cloudflare's names: ai-gateway/observability/otel-integration."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets among them are there in full."""
    authorization: str | None = field(default=None, repr=False)
    """The whole value of that header."""
    content_type: ContentType = "json"
