"""Exports spans in OTLP's JSON form, for which the SDK has no exporter (opentelemetry.io/docs/specs/otlp, "JSON").

The form is protobuf's JSON mapping, but for ids, which are hexadecimal. Needs the extra `otel`.
"""

import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import orjson
import requests
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, StatusCode
from opentelemetry.util.types import AttributeValue

TRIES: Final = 3
PAUSE_S: Final = 1.0
"""Before the second try; before the third it is twice as long."""
_AGAIN: Final = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_FORMS: Final = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
_STATUSES: Final = {StatusCode.UNSET: 0, StatusCode.OK: 1, StatusCode.ERROR: 2}

Json = dict[str, object]


class JsonExporter(SpanExporter):
    """Called by one thread, but for `shutdown`, which any may call and which does not wait."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers.update({"Content-Type": "application/json", **headers})
        self._ended = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = encoded(spans)
        for tried in range(TRIES):
            if tried and self._ended.wait(tried * PAUSE_S):
                break
            status = self._post(body)
            if status is not None and status < HTTPStatus.MULTIPLE_CHOICES:
                return SpanExportResult.SUCCESS
            if status is not None and status not in _AGAIN:
                break
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._ended.set()
        self._session.close()

    def _post(self, body: bytes) -> int | None:
        """The answer's status; None if there was none."""
        try:
            return self._session.post(self._url, data=body, timeout=self._timeout_s, allow_redirects=False).status_code
        except requests.RequestException:
            return None


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest. All spans are of one resource and one scope, as ours are."""
    first = spans[0]
    scope = first.instrumentation_scope
    named = {"name": scope.name, "version": scope.version} if scope else {}
    # One by one: of all of them together Python's collector would take stock, several times.
    of_scope = {"scope": named, "spans": [orjson.Fragment(orjson.dumps(_span(span))) for span in spans]}
    return orjson.dumps({"resourceSpans": [{"resource": _resource(first.resource), "scopeSpans": [of_scope]}]})


def _resource(resource: Resource) -> Json:
    return {"attributes": _key_values(resource.attributes)}


def _span(span: ReadableSpan) -> Json:
    assert span.context is not None
    told: Json = {
        **_ids(span.context),
        "flags": span.context.trace_flags,
        "name": span.name,
        "kind": span.kind.value + 1,  # the message's enum has "unspecified" before ours
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _key_values(span.attributes or {}),
        "status": {"code": _STATUSES[span.status.status_code]},
    }
    if span.status.description:
        told["status"] = {"code": _STATUSES[span.status.status_code], "message": span.status.description}
    if span.parent is not None:
        told["parentSpanId"] = _ids(span.parent)["spanId"]
    return told


def _ids(context: SpanContext) -> dict[str, str]:
    return {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}


def _key_values(attributes: Mapping[str, AttributeValue]) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: AttributeValue) -> Json:
    form = _FORMS.get(type(value))
    if form is None:
        raise TypeError(f"an attribute is a {type(value).__name__}, which no span of ours has")
    return {form: str(value) if form == "intValue" else value}
