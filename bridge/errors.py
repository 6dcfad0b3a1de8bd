"""One tree of errors: wire code, HTTP status, whose fault it is, and whether trying again may help.

A code is a class. Codes below 9000 are Cloudflare AI Gateway's own, those above are ours; README.md lists them all.
"""

from typing import Literal

Source = Literal["provider", "bridge", "client"]


class BridgeError(Exception):
    """What went wrong with one message or one event, in the words the client will read.

    `str(error)` is the message; it names what is wrong and what to do, and never holds a secret.
    """

    code: int = 9099
    status: int = 500
    source: Source = "bridge"
    retryable: bool = False
    retry_after_ms: int | None = None

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class InternalError(BridgeError):
    """An exception that nobody expected: a defect of the bridge."""


# The client's message is at fault.


class ClientError(BridgeError):
    source = "client"
    status = 400


class UnknownGateway(ClientError):
    code = 2001


class UnknownProvider(ClientError):
    code = 2008


class Unauthorized(ClientError):
    code = 2009
    status = 401


class BadMessage(ClientError):
    code = 9001


class UnknownType(ClientError):
    code = 9002


class BadField(ClientError):
    code = 9003


class EventIdInFlight(ClientError):
    code = 9004
    status = 409


class TooManyInFlight(ClientError):
    code = 9005
    status = 429
    retryable = True


class TooLarge(ClientError):
    code = 9006
    status = 413


class EndpointRefused(ClientError):
    code = 9007


class OriginRefused(ClientError):
    code = 9009
    status = 403


class Cancelled(ClientError):
    code = 9020
    status = 499


class SlowClient(ClientError):
    code = 9021
    status = 499


# The bridge declines.


class OutOfMemoryBudget(BridgeError):
    code = 9008
    status = 503
    retryable = True


class Draining(BridgeError):
    code = 9022
    status = 503
    retryable = True


class EveryStepSkipped(BridgeError):
    code = 9023
    status = 503
    retryable = True


# The provider failed, or the way to it.


class ProviderError(BridgeError):
    source = "provider"
    status = 502
    retryable = True


class ConnectFailed(ProviderError):
    code = 9010


class ConnectTimeout(ConnectFailed):
    """The provider could not be reached in time: like any other silence, no reason to dial the same step again."""


class TlsFailed(ProviderError):
    code = 9011
    retryable = False


class ResetBeforeAnswer(ProviderError):
    code = 9012


class NoAnswerInTime(ProviderError):
    code = 9013
    status = 504


class IdleTimeout(ProviderError):
    code = 9014
    status = 504


class TotalTimeout(ProviderError):
    code = 9015
    status = 504
    retryable = False


class BrokenStream(ProviderError):
    code = 9016


class ProviderErrorInStream(ProviderError):
    code = 9017

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class ItemTooLarge(ProviderError):
    code = 9018
    retryable = False


class UnusableAnswer(ProviderError):
    code = 9019
    retryable = False


class ProviderStatus(ProviderError):
    """The provider answered with an HTTP error: the only error whose code is that status."""

    def __init__(self, status: int, message: str, *, retryable: bool, retry_after_ms: int | None) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.code = self.status = status
        self.retryable = retryable
