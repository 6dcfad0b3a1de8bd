"""What the bridge says, as an HTTP answer or as an exception of the HTTP library. Pure."""

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
_TOO_LATE: Final = {NoAnswerInTime.code, IdleTimeout.code, TotalTimeout.code}


def headers_of(metadata: Metadata, error: Failure | None) -> Headers:
    """The provider's own, and beside them what the bridge's HTTP door tells too (PROTOCOL.md, B "HTTP too")."""
    headers = [_JSON, *_retry(error)] if metadata.headers is None else list(metadata.headers.items())
    told = {
        "cf-aig-step": metadata.step,
        "cf-aig-log-id": metadata.log_id,
        "cf-aig-cache-status": metadata.cache_status,
        "cf-aig-event-id": metadata.event_id,
    }
    return headers + [(name, str(value)) for name, value in told.items() if value is not None]


def as_bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    """As they were on the wire: the libraries encode text as ASCII, and raise for any other character.

    The bridge reads a value as UTF-8 where it is valid, and as Latin-1 otherwise.
    """
    return [(name.encode("ascii"), _as_bytes(value)) for name, value in headers]


def _as_bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode(errors="replace")


def _retry(error: Failure | None) -> Headers:
    """Whether to try again, and when.

    The first is for SDKs made by Stainless (openai, anthropic, groq: `_should_retry` in `_base_client.py`), which would
    retry any 5xx. They read the second too, as do mistralai and cohere.
    """
    if error is None:
        return []
    headers = [("x-should-retry", str(error.retryable).lower())]
    if error.retry_after_ms is not None:
        headers.append(("retry-after-ms", str(error.retry_after_ms)))
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
    return headers


def refusal(error: CannotConnect) -> tuple[int, Headers, bytes] | None:
    """The bridge's HTTP error in place of the upgrade, such as 401: the SDK should say that, and not retry it."""
    if error.status is None or error.status < 400:
        return None
    known = BridgeError(f"the bridge did not let the transport in: {error}")
    known.status, known.code = error.status, error.code or InternalError.code
    return error.status, [_JSON], sdk_error_body(known)


# What goes wrong.


class TooLate(TimeoutError):
    """The library's own limit of time, in its own words: which one."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


_FAULTS: Final = (CallFailed, NoProvider, TooLate)


@contextmanager
def faults_of(library: ModuleType) -> Iterator[None]:
    """The one place where our exceptions become the library's: what it would raise, had it met this on its own way."""
    try:
        yield
    except _FAULTS as error:
        raise getattr(library, _name_of(error))(str(error)) from error


def _name_of(error: Exception) -> str:
    match error:
        case TooLate():
            return error.name
        case NoProvider():
            return "UnsupportedProtocol"
        case CannotConnect():
            return "ConnectError"
        case EventFailed() if error.code in _TOO_LATE:
            return "ReadTimeout"
        case _:
            return "RemoteProtocolError"
