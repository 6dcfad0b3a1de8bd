"""Converts answers of the bridge to HTTP responses or to exceptions of the HTTP library. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from bridge.client.errors import CallFailed, CannotConnect, EventFailed
from bridge.client.frames import Failure, Metadata
from bridge.errors import BridgeError, IdleTimeout, InternalError, NoAnswerInTime, TotalTimeout
from bridge.protocol.frames import sdk_error_body
from bridge.transports.routes import NoProvider

Headers = list[tuple[str, str]]

_JSON: Final = ("content-type", "application/json")
_TIMEOUT_CODES: Final = {NoAnswerInTime.code, IdleTimeout.code, TotalTimeout.code}


def headers_of(metadata: Metadata, error: Failure | None) -> Headers:
    """Return the provider's headers and the `cf-aig-*` headers that the bridge's HTTP routes send too.

    Source: bridge/docs/protocol.md, "HTTP too".
    """
    headers = [_JSON, *_retry(error)] if metadata.headers is None else list(metadata.headers.items())
    reported = {
        "cf-aig-step": metadata.step,
        "cf-aig-log-id": metadata.log_id,
        "cf-aig-cache-status": metadata.cache_status,
        "cf-aig-event-id": metadata.event_id,
    }
    return headers + [(name, str(value)) for name, value in reported.items() if value is not None]


def as_bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Encode headers as they were received: the libraries accept only ASCII text and raise for other characters.

    The bridge decodes a value as UTF-8 if it is valid, and as Latin-1 otherwise.
    """
    return [(name.encode("ascii"), _as_bytes(value)) for name, value in headers]


def _as_bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode(errors="replace")


def _retry(error: Failure | None) -> Headers:
    """Return headers that say if and when to retry.

    `x-should-retry` is for SDKs made by Stainless (openai, anthropic, groq: `_should_retry` in `_base_client.py`),
    which would retry any 5xx. They read the retry delays too, as do mistralai and cohere.
    """
    if error is None:
        return []
    headers = [("x-should-retry", str(error.retryable).lower())]
    if error.retry_after_ms is not None:
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
    return headers


def refusal(error: CannotConnect) -> tuple[int, Headers, bytes] | None:
    """Return the HTTP error that replaced the upgrade, such as 401, so that the SDK reports it and does not retry."""
    if error.status is None or error.status < 400:
        return None
    known = BridgeError(f"the bridge refused the connection of the transport: {error}")
    known.status, known.code = error.status, error.code or InternalError.code
    return error.status, [_JSON], sdk_error_body(known)


class TransportTimeout(TimeoutError):
    """A timeout of the HTTP library; `name` is the library's exception."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


_FAULTS: Final = (CallFailed, NoProvider, TransportTimeout)


@contextmanager
def faults_of(library: ModuleType) -> Iterator[None]:
    """Convert exceptions of the bridge to those that the library raises for its own connections."""
    try:
        yield
    except _FAULTS as error:
        raise getattr(library, _name_of(error))(str(error)) from error


def _name_of(error: Exception) -> str:
    match error:
        case TransportTimeout():
            return error.name
        case NoProvider():
            return "UnsupportedProtocol"
        case CannotConnect():
            return "ConnectError"
        case EventFailed() if error.code in _TIMEOUT_CODES:
            return "ReadTimeout"
        case _:
            return "RemoteProtocolError"
