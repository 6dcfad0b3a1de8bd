"""One tree of errors: wire code, HTTP status, whose fault it is, and whether trying again may help.

A code is a class. Codes below 9000 are Cloudflare AI Gateway's own, those above are ours; README.md lists them all.
"""

from collections.abc import Iterator
from typing import Literal, Self

Source = Literal["provider", "bridge", "client"]


class BridgeError(Exception):
    """What went wrong with one message or one event, in the words the client will read.

    `str(error)` is the message; it names what is wrong and what to do, and never holds a secret. It can be encoded:
    what is no character, such as half an emoji, becomes a question mark.
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
        """Without where it comes from: to keep an error is to keep all that the frames of its traceback worked on."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class InternalError(BridgeError):
    """An exception that nobody expected: a defect of the bridge."""

    code = 9099


# The client's message is at fault.


class ClientError(BridgeError):
    source = "client"
    status = 400


class UnknownGateway(ClientError):
    """No gateway of that name is configured."""

    code = 2001


class UnknownProvider(ClientError):
    """The provider is neither built in nor configured."""

    code = 2008


class Unauthorized(ClientError):
    """No token came, or none of the gateway's."""

    code = 2009
    status = 401


class NotAllowed(Unauthorized):
    """The scopes of the token, or of stored keys, do not allow the call."""

    status = 403


class UnknownKey(ClientError):
    """The gateway has no stored key of that alias for the provider."""

    code = 2040


class RateLimited(ClientError):
    """More requests than the gateway, or the token, may make in its window."""

    code = 2003
    status = 429
    retryable = True


class SpendLimit(ClientError):
    """More money than the gateway, or the token, may spend in its window."""

    code = 2041
    status = 429
    is_per_step: bool = False
    """The rule is for some providers or models: another step may have money left."""
    pending_budget: str = ""
    """The key of the purse whose reservations, once settled, may leave money. Empty where the money is spent."""


class BadMessage(ClientError):
    """The message is no JSON object."""

    code = 9001


class UnknownType(ClientError):
    """The message has no `type`, or one that the bridge does not know."""

    code = 9002


class BadField(ClientError):
    """A field is missing, or has the wrong type or value; the message names it."""

    code = 9003


class EventIdInFlight(ClientError):
    """The `eventId` is in flight; it may be used again after its last frame."""

    code = 9004
    status = 409


class TooManyInFlight(ClientError):
    """Too many events are in flight: on this socket, or for the gateway, the token or the provider."""

    code = 9005
    status = 429
    retryable = True


class TooLarge(ClientError):
    """The message is too long or too deep, or has too many steps or headers."""

    code = 9006
    status = 413


class EndpointRefused(ClientError):
    """The endpoint would leave the provider's base URL, or cannot be sent."""

    code = 9007


class OriginRefused(ClientError):
    """An open gateway was reached from a page or by a host name that it does not know."""

    code = 9009
    status = 403


class CannotBePriced(ClientError):
    """A budget counts the call, and its cost cannot be known."""

    code = 9027
    status = 403


class Cancelled(ClientError):
    """The client cancelled the event, or closed the socket."""

    code = 9020
    status = 499


class SlowClient(ClientError):
    """The client took nothing for too long while frames waited."""

    code = 9021
    status = 499


# The bridge declines.


class OutOfMemoryBudget(BridgeError):
    """A memory budget, or the number of sockets, is used up."""

    code = 9008
    status = 503
    retryable = True


class Draining(BridgeError):
    """The bridge is shutting down."""

    code = 9022
    status = 503
    retryable = True


class KeyUnusable(BridgeError):
    """A stored key cannot be used: no token was to be had for it, or nothing here can sign with it."""

    code = 9024
    status = 502


class EveryStepSkipped(BridgeError):
    """A step was skipped: its provider keeps failing. Only attempts have it, never an event."""

    code = 9023
    status = 503
    retryable = True


# The provider failed, or the way to it.


class ProviderError(BridgeError):
    source = "provider"
    status = 502
    retryable = True


class ConnectFailed(ProviderError):
    """The provider could not be reached: refused, no such host, or not in time."""

    code = 9010


class ConnectTimeout(ConnectFailed):
    """The provider could not be reached in time: like any other silence, no reason to dial the same step again."""


class TlsFailed(ProviderError):
    """The TLS handshake with the provider failed, or its certificate is not trusted."""

    code = 9011
    retryable = False


class ResetBeforeAnswer(ProviderError):
    """The provider's connection was reset or cut before an answer."""

    code = 9012


class NoAnswerInTime(ProviderError):
    """No answer within `requestTimeout`."""

    code = 9013
    status = 504


class IdleTimeout(ProviderError):
    """The provider fell silent for longer than `idleTimeout`."""

    code = 9014
    status = 504


class TotalTimeout(ProviderError):
    """The event was not over within `totalTimeout`."""

    code = 9015
    status = 504
    retryable = False


class BrokenStream(ProviderError):
    """The stream broke: cut, or ended without its end mark."""

    code = 9016


class ProviderErrorInStream(ProviderError):
    """The provider reported an error inside the stream."""

    code = 9017

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class ItemTooLarge(ProviderError):
    """One item of the stream is larger than `max_item_bytes`."""

    code = 9018
    retryable = False


class UnusableAnswer(ProviderError):
    """A redirect, or an answer that cannot be used."""

    code = 9019
    retryable = False


class ProviderStatus(ProviderError):
    """The provider answered with an HTTP error: the only error whose code is that status."""

    def __init__(self, status: int, message: str, *, retryable: bool, retry_after_ms: int | None) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.code = self.status = status
        self.retryable = retryable


def all_errors() -> list[type[BridgeError]]:
    """Every error with a code of its own, by code; the first sentence of its docstring says what it means."""
    return sorted((error for error in _subclasses(BridgeError) if "code" in vars(error)), key=lambda error: error.code)


def _subclasses(error: type[BridgeError]) -> Iterator[type[BridgeError]]:
    for kind in error.__subclasses__():
        if kind.__module__ == __name__:
            yield kind
            yield from _subclasses(kind)
