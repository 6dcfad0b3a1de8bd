"""Builds requests to the bridge: steps, their settings, and the message that contains them. Pure."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import orjson

from bridge.client.frames import EventId

Json = dict[str, Any]


class Config(TypedDict, total=False):
    """Settings of a step (bridge/docs/configuration.md). Times are in milliseconds except `cacheTtl`, in seconds."""

    connectTimeout: int
    requestTimeout: int
    idleTimeout: int
    totalTimeout: int
    maxAttempts: int
    retryDelay: int
    backoff: Literal["constant", "linear", "exponential"]
    maxRetryAfter: int
    onBreak: Literal["error", "restart"]
    onPolicy: Literal["answer", "next"]
    frames: Literal["items", "raw"]
    cacheTtl: int
    skipCache: bool
    cacheKey: str
    byokAlias: str
    collectLog: bool
    collectLogPayload: bool
    metadata: dict[str, str | int | float | bool]
    customCost: dict[str, float]
    otelTraceId: str
    otelParentSpanId: str


@dataclass(frozen=True, slots=True)
class Step:
    """One provider call: `Step("openai", "chat/completions", {"model": …}, headers={"Authorization": …})`."""

    provider: str
    endpoint: str = ""
    query: Any = None
    """JSON body. Bytes must be JSON and reach the provider unchanged."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    config: Config = field(default_factory=Config, kw_only=True)
    method: str | None = field(default=None, kw_only=True)
    """HTTP method; None means POST."""
    body: str | bytes | None = field(default=None, kw_only=True)
    """Body of any type in place of `query`; its content type is in the headers."""

    def as_json(self) -> Json:
        """Return the step in the form of the protocol, without unset members."""
        query = orjson.Fragment(self.query) if isinstance(self.query, bytes) else self.query
        optional = {
            "method": self.method,
            "headers": dict(self.headers) or None,
            "query": query,
            "config": dict(self.config) or None,
            **_body(self.body),
        }
        required = {"provider": self.provider, "endpoint": self.endpoint}
        return required | {name: value for name, value in optional.items() if value is not None}


AnyStep = Step | Mapping[str, Any]
"""A Step, or a step in the form of the protocol."""

Request = AnyStep | Sequence[AnyStep]
"""A step, a list of steps, or an object with `steps`. An `orjson.Fragment` is sent unchanged."""


def as_json(request: Request) -> Any:
    if isinstance(request, Step):
        return request.as_json()
    if isinstance(request, Sequence) and not isinstance(request, str | bytes):
        return [as_json(step) for step in request]
    return request


def chain(first: AnyStep, fallback: Iterable[AnyStep], config: Mapping[str, Any] | None) -> Json:
    """Return a request whose `config` applies to every step without its own."""
    steps = [as_json(step) for step in (first, *fallback)]
    settings = {"config": dict(config)} if config else {}
    return settings | {"steps": steps}


def create(event_id: EventId, request: Request) -> bytes:
    """Return the message that starts an event. `event_id` replaces an ID in the request.

    Raises TypeError for values that JSON cannot hold.
    """
    written = as_json(request)
    if isinstance(written, Mapping) and "eventId" in written:
        written = {**written, "eventId": event_id}  # it would take precedence over the one beside it
    return orjson.dumps({"type": "universal.create", "eventId": event_id, "request": written})


def cancel(event_id: EventId) -> bytes:
    return orjson.dumps({"type": "universal.cancel", "eventId": event_id})


def _body(body: str | bytes | None) -> Json:
    match body:
        case None:
            return {}
        case bytes():
            return {"body": base64.b64encode(body).decode(), "encoding": "base64"}
        case str():
            return {"body": body, "encoding": "text"}
