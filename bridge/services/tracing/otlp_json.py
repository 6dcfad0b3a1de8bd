"""Export spans as OTLP JSON, for which the SDK has no exporter (opentelemetry.io/docs/specs/otlp, "JSON").

The format is protobuf's JSON mapping, except that ids are hexadecimal and enums are numbers. It is written piece by
piece: with a dictionary for each attribute it takes a quarter longer. Needs the extra `otel`.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

import orjson
import requests
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from bridge import __version__
from bridge.services.tracing.spans import Span

MAX_ATTEMPTS: Final = 3
RETRY_DELAY_S: Final = 1.0
"""Delay before the second attempt; the delay before the third is twice as long."""
_RETRYABLE: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}

_SCOPE: Final = orjson.dumps({"name": "bridge", "version": __version__})
_SPAN: Final = (
    b'{"traceId":"%032x","spanId":"%016x",%b"flags":1,"kind":3,"name":%b,"startTimeUnixNano":"%d",'
    b'"endTimeUnixNano":"%d","attributes":[%b],"status":%b}'
)
"""A sampled span of SPAN_KIND_CLIENT."""
_PARENT: Final = b'"parentSpanId":"%016x",'
_UNSET: Final = b'{"code":0}'
_FAILED: Final = b'{"code":2,"message":%b}'
_VALUE_TYPES: Final[Mapping[type, tuple[bytes, Callable[[Any], bytes]]]] = {
    bool: (b"boolValue", orjson.dumps),
    int: (b"intValue", b'"%d"'.__mod__),
    float: (b"doubleValue", orjson.dumps),
    str: (b"stringValue", orjson.dumps),
}


class JsonExporter:
    """Implements `batching.Exporter` for OTLP JSON."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, resource: Resource) -> None:
        self._url = url
        self._resource = _attributes(resource.attributes)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers.update({"Content-Type": "application/json", **headers})
        self._ended = threading.Event()

    def export(self, spans: Sequence[Span]) -> SpanExportResult:
        body = encode_request(spans, self._resource)
        for attempt in range(MAX_ATTEMPTS):
            if attempt and self._ended.wait(attempt * RETRY_DELAY_S):
                break
            status = self._post(body)
            if status is not None and status < HTTPStatus.MULTIPLE_CHOICES:
                return SpanExportResult.SUCCESS
            if status is not None and status not in _RETRYABLE:
                break
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._ended.set()
        self._session.close()

    def _post(self, body: bytes) -> int | None:
        """Return the HTTP status of the response; None if there was no response."""
        try:
            return self._session.post(self._url, data=body, timeout=self._timeout_s, allow_redirects=False).status_code
        except requests.RequestException:
            return None


def encode_request(spans: Iterable[Span], resource: bytes) -> bytes:
    """Return an ExportTraceServiceRequest; `resource` holds the encoded attributes of the resource."""
    head = b'{"resourceSpans":[{"resource":{"attributes":[%b]},"scopeSpans":[{"scope":%b,"spans":[' % (resource, _SCOPE)
    return b"".join((head, b",".join(map(_span, spans)), b"]}]}]}"))


def _span(span: Span) -> bytes:
    return _SPAN % (
        span.trace_id,
        span.span_id,
        b"" if span.parent_id is None else _PARENT % span.parent_id,
        orjson.dumps(span.name),
        span.start_ns,
        span.end_ns,
        _attributes(span.attributes),
        _UNSET if span.failure is None else _FAILED % orjson.dumps(span.failure),
    )


def _attributes(attributes: Mapping[str, Any]) -> bytes:
    return b",".join([_attribute(name, value) for name, value in attributes.items()])


def _attribute(name: str, value: Any) -> bytes:
    value_type, encode = _VALUE_TYPES[type(value)]
    return b"".join((_attribute_head(name, value_type), encode(value), b"}}"))


@lru_cache(1024)
def _attribute_head(name: str, value_type: bytes) -> bytes:
    """Return the encoded beginning of an attribute. It is cached: most names repeat."""
    return b'{"key":%b,"value":{"%b":' % (orjson.dumps(name), value_type)
