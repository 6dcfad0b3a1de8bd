"""Define every error that a client can receive: code, HTTP status, source and whether a retry may help.

A code is a class. Codes below 9000 are those of Cloudflare AI Gateway; the others belong to the bridge.
`bridge/docs/errors.md` lists them all.
"""

from collections.abc import Iterator
from typing import Literal, Self

Source = Literal["provider", "bridge", "client"]


class BridgeError(Exception):
    """An error of one message or one event.

    `str(error)` is the message for the client: it names what is wrong and what to do, and never holds a secret. It can
    always be encoded as UTF-8: a lone surrogate becomes a question mark.
    """

    code: int = 9099
    status: int = 500
    source: Source = "bridge"
    retryable: bool = False
    retry_after_ms: int | None = None

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message.encode(errors="replace").decode())
        self.retry_after_ms = retry_after_ms

    def without_traceback(self) -> Self:
        """Return the error without traceback and causes, which would keep all objects of their stack frames alive."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class InternalError(BridgeError):
    """An unexpected exception: a defect of the bridge."""

    code = 9099


# Errors that the client causes.


class ClientError(BridgeError):
    """An error that the client's message causes."""

    source = "client"
    status = 400


class UnknownGateway(ClientError):
    """No gateway with this name is configured."""

    code = 2001


class UnknownProvider(ClientError):
    """The provider is neither built in nor configured."""

    code = 2008


class Unauthorized(ClientError):
    """The token is missing, or the gateway has no such token."""

    code = 2009
    status = 401


class NotAllowed(Unauthorized):
    """The scopes of the token, or of stored keys, do not allow the call."""

    status = 403


class UnknownKey(ClientError):
    """The gateway has no stored key with this alias for the provider."""

    code = 2040


class RateLimited(ClientError):
    """The gateway or the token has used up its requests for the window."""

    code = 2003
    status = 429
    retryable = True


class SpendLimit(ClientError):
    """The gateway or the token has used up its budget for the window."""

    code = 2041
    status = 429
    is_per_step: bool = False
    """True if the rule limits some providers or models only, so that another step may have budget left."""
    pending_budget: str = ""
    """The key of the budget whose reservations, once settled, may free money. Empty if the money is spent."""


class BadMessage(ClientError):
    """The message is not a JSON object."""

    code = 9001


class UnknownType(ClientError):
    """The message has no `type`, or an unknown one."""

    code = 9002


class BadField(ClientError):
    """A field is missing, or has the wrong type or value; the message names it."""

    code = 9003


class EventIdInUse(ClientError):
    """The `eventId` is in flight; it can be used again after the last frame of its event."""

    code = 9004
    status = 409


class TooManyEvents(ClientError):
    """Too many events are in flight: on this socket, or for the gateway, the token or the provider."""

    code = 9005
    status = 429
    retryable = True


class TooLarge(ClientError):
    """The message is too long, nests too deep, or has too many steps or headers."""

    code = 9006
    status = 413


class EndpointRefused(ClientError):
    """The endpoint leaves the provider's base URL, or cannot be sent."""

    code = 9007


class OriginRefused(ClientError):
    """A request to an open gateway came from an unknown origin or for an unknown host name."""

    code = 9009
    status = 403


class CannotBePriced(ClientError):
    """A budget counts the call, but its cost cannot be known."""

    code = 9027
    status = 403


class Cancelled(ClientError):
    """The client cancelled the event, or closed the socket."""

    code = 9020
    status = 499


class SlowClient(ClientError):
    """The client read nothing for too long while frames were queued."""

    code = 9021
    status = 499


# Errors of the bridge.


class OutOfMemoryBudget(BridgeError):
    """A memory budget, or the limit of connections, is exhausted."""

    code = 9008
    status = 503
    retryable = True


class Draining(BridgeError):
    """The bridge is shutting down."""

    code = 9022
    status = 503
    retryable = True


class KeyUnusable(BridgeError):
    """A stored key cannot be used: no token could be fetched for it, or the bridge cannot sign with it."""

    code = 9024
    status = 502


class EveryStepSkipped(BridgeError):
    """A step was skipped because its circuit breaker is open. Only attempts have this error, never an event."""

    code = 9023
    status = 503
    retryable = True


# Errors of the provider, and of the connection to it.


class ProviderError(BridgeError):
    """An error of the provider, or of the connection to it."""

    source = "provider"
    status = 502
    retryable = True


class ConnectFailed(ProviderError):
    """The provider could not be reached: connection refused, unknown host, or timeout."""

    code = 9010


class ConnectTimeout(ConnectFailed):
    """The provider did not accept the connection in time. As after any timeout, the same step is not retried."""


class TlsFailed(ProviderError):
    """The TLS handshake with the provider failed, or its certificate is not trusted."""

    code = 9011
    retryable = False


class ResetBeforeAnswer(ProviderError):
    """The provider closed or reset the connection before it answered."""

    code = 9012


class NoAnswerInTime(ProviderError):
    """The provider did not answer within `requestTimeout`."""

    code = 9013
    status = 504


class IdleTimeout(ProviderError):
    """The provider sent nothing for longer than `idleTimeout`."""

    code = 9014
    status = 504


class TotalTimeout(ProviderError):
    """The event did not end within `totalTimeout`."""

    code = 9015
    status = 504
    retryable = False


class BrokenStream(ProviderError):
    """The stream is incomplete: it was cut, or ended without its end mark."""

    code = 9016


class ProviderErrorInStream(ProviderError):
    """The provider reported an error inside the stream."""

    code = 9017

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class ItemTooLarge(ProviderError):
    """An item of the stream is larger than `max_item_bytes`."""

    code = 9018
    retryable = False


class UnusableAnswer(ProviderError):
    """The provider answered with a redirect, or with an answer that cannot be used."""

    code = 9019
    retryable = False


class ProviderStatus(ProviderError):
    """The provider answered with an HTTP error. This is the only error whose code is that status."""

    def __init__(self, status: int, message: str, *, retryable: bool, retry_after_ms: int | None) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.code = self.status = status
        self.retryable = retryable


def all_errors() -> list[type[BridgeError]]:
    """Return every error class with a code of its own, sorted by code.

    The first sentence of its docstring is the description of the code in the documentation.
    """
    return sorted((error for error in _subclasses(BridgeError) if "code" in vars(error)), key=lambda error: error.code)


def _subclasses(error: type[BridgeError]) -> Iterator[type[BridgeError]]:
    for kind in error.__subclasses__():
        if kind.__module__ == __name__:
            yield kind
            yield from _subclasses(kind)
