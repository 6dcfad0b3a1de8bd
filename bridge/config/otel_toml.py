"""`[[gateways.NAME.otel]]`: collectors of spans."""

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

from bridge.config.otel import OtelExporter
from bridge.config.reader import Reader
from bridge.redact.text import is_secret_name
from bridge.settings.kinds import Choice


def exporters_of(reader: Reader, given: object) -> tuple[OtelExporter, ...]:
    exporters = (_exporter(each, table) for each, table in reader.tables(given))
    return tuple(exporter for exporter in exporters if exporter is not None)


def _exporter(reader: Reader, given: Mapping[str, object]) -> OtelExporter | None:
    taken = reader.take(
        given,
        {
            "url": _url,
            "headers": partial(_headers, reader.below("headers")),
            "authorization": reader.secrets.read,
            "content_type": Choice(("json", "protobuf")).convert,
        },
    )
    if "url" not in given:
        reader.problem("url must be given: where the collector takes traces")
    return OtelExporter(**taken) if "url" in taken else None


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("is no http:// or https:// URL without user and password")
    assert isinstance(value, str)
    return value


def _headers(reader: Reader, given: object) -> Mapping[str, str]:
    """One whose name says that it is secret must be a reference; any other may be."""
    secrets = reader.secrets
    return reader.take(
        given, {name: secrets.read if is_secret_name(name) else secrets.text for name in reader.table(given)}
    )
