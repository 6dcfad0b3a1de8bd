"""A collector on 127.0.0.1 that accepts OTLP over HTTP in both formats and decodes it with OpenTelemetry's messages."""

import base64
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass
class ReceivedSpan:
    """A received span."""

    span: Span
    resource: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        return _values(self.span.attributes)

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        """Return the parent id; empty for a root span."""
        return self.span.parent_span_id.hex()

    @property
    def failed(self) -> bool:
        return bool(self.span.status.code == Status.STATUS_CODE_ERROR)


@dataclass
class Receiver:
    port: int = 0
    headers: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of each request, with names in lower case."""
    spans: list[ReceivedSpan] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """The statuses of the next responses; then 200."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def events(self) -> list[ReceivedSpan]:
        """Return the spans of events, without those of attempts."""
        return [seen for seen in self.spans if not seen.span.name.startswith("attempt ")]

    @property
    def attempts(self) -> list[ReceivedSpan]:
        return [seen for seen in self.spans if seen.span.name.startswith("attempt ")]

    async def receive(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self._read(request.content_type, await request.read())
        return web.Response(status=status)

    def _read(self, content_type: str, body: bytes) -> None:
        message = ExportTraceServiceRequest()
        if content_type == "application/json":
            ParseDict(_with_base64(orjson.loads(body)), message)
        else:
            assert content_type == "application/x-protobuf"
            message.ParseFromString(body)
        for of_resource in message.resource_spans:
            resource = _values(of_resource.resource.attributes)
            self.spans += [ReceivedSpan(span, resource) for scope in of_resource.scope_spans for span in scope.spans]


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(statuses=list(statuses))
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _with_base64(value: Any) -> Any:
    """Convert OTLP's hexadecimal ids to base64, as protobuf's JSON mapping encodes bytes."""
    if isinstance(value, list):
        return [_with_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: base64.b64encode(bytes.fromhex(each)).decode() if name in _IDS else _with_base64(each)
        for name, each in value.items()
    }
