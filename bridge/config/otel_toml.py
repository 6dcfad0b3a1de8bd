"""Read `[[gateways.NAME.otel]]`: collectors of OpenTelemetry spans."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

from bridge.config.otel import OtelExporter
from bridge.config.reader import Reader
from bridge.redact.text import is_secret_name
from bridge.settings.kinds import Choice


def exporters_of(reader: Reader, value: object) -> tuple[OtelExporter, ...]:
    exporters = (_exporter(each, table) for each, table in reader.tables(value))
    return tuple(exporter for exporter in exporters if exporter is not None)


def _exporter(reader: Reader, value: Mapping[str, object]) -> OtelExporter | None:
    values = reader.take(
        value,
        {
            "url": _url,
            "headers": partial(_headers, reader.below("headers")),
            "authorization": reader.secrets.read,
            "content_type": Choice(("json", "protobuf")).convert,
        },
    )
    if "url" not in value:
        reader.problem("missing url: the trace endpoint of the collector")
    return OtelExporter(**values) if "url" in values else None


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("must be an http:// or https:// URL without user and password")
    assert isinstance(value, str)
    return value


def _headers(reader: Reader, value: object) -> Mapping[str, str]:
    """Read headers. A header with a secret name must be a reference; any other may be one."""
    secrets = reader.secrets
    return reader.take(
        value, {name: secrets.read if is_secret_name(name) else secrets.text for name in reader.table(value)}
    )
