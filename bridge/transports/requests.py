"""Converts a request of an HTTP library to a step of the bridge. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bridge.client.steps import Config, Step
from bridge.formats.json_text import is_json
from bridge.transports.routes import Address, ProviderPlace

_JSON_SPACE: Final = b" \t\n\r"


class Url(Protocol):
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def raw_path(self) -> bytes: ...


class HttpRequest(Protocol):
    """Common interface of `httpx.Request` and `httpx2.Request`."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class TransportRequest:
    """A request with its complete body. Times are in seconds; None means no limit."""

    method: str
    address: Address
    headers: Mapping[str, str]
    body: bytes
    connect_s: float | None
    read_s: float | None


def read_request(request: HttpRequest, body: bytes) -> TransportRequest:
    url, limits = request.url, request.extensions.get("timeout", {})
    address = Address(url.scheme, url.host, url.port, url.raw_path.decode("ascii"))
    headers = {name.lower(): value for name, value in request.headers.items()}
    return TransportRequest(request.method, address, headers, body, limits.get("connect"), limits.get("read"))


def step_of(request: TransportRequest, place: ProviderPlace, config: Config) -> Step:
    """Return the step of a request: JSON as `query`, any other body as text or base64. The bytes are preserved."""
    is_query = _is_query(request.headers.get("content-type", ""), request.body)
    return Step(
        place.provider,
        place.endpoint,
        request.body if is_query else None,
        headers=request.headers,
        config=config,
        method=request.method,
        body=None if is_query or not request.body else _text_or_bytes(request.body),
    )


def _is_query(content_type: str, body: bytes) -> bool:
    """Return true if the body can be sent as `query`: the bridge drops white space around JSON, but nothing else."""
    bare = content_type.partition(";")[0].strip().lower()
    return bare == "application/json" and body == body.strip(_JSON_SPACE) and is_json(body)


def _text_or_bytes(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
