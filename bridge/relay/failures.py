"""Map failures to outcomes of the chain and to errors for the client."""

from typing import Final

from bridge.errors import (
    BridgeError,
    BrokenStream,
    ConnectFailed,
    ConnectTimeout,
    IdleTimeout,
    NoAnswerInTime,
    ProviderErrorInStream,
    ProviderStatus,
    ResetBeforeAnswer,
    TlsFailed,
    TotalTimeout,
)
from bridge.formats.stream_reader import ProviderFault
from bridge.policy.chain import RETRIED_STATUSES, Cause, Failed, PolicyRefusal
from bridge.relay.deadlines import Clock
from bridge.relay.plan import PlannedStep

_CAUSES: Final[dict[type[BridgeError], Cause]] = {
    ConnectFailed: Cause.CONNECT,
    ConnectTimeout: Cause.TIMEOUT,
    TlsFailed: Cause.TLS,
    ResetBeforeAnswer: Cause.RESET,
    BrokenStream: Cause.BREAK,
    NoAnswerInTime: Cause.TIMEOUT,
    IdleTimeout: Cause.TIMEOUT,
}
"""Any other error is UNUSABLE: a retry of the same step would fail again."""


def cause_of(error: BridgeError) -> Cause:
    return _CAUSES.get(type(error), Cause.UNUSABLE)


def outcome_of(fault: ProviderFault, status: int, pause_ms: int | None = None) -> Failed | PolicyRefusal:
    """Return the outcome of a provider's error; `pause_ms` is the wait that the provider requests."""
    return (
        PolicyRefusal()
        if fault.policy_refusal
        else Failed(Cause.STATUS, status, pause_ms, fault.exhausted_quota, is_known=not fault.is_unknown)
    )


def status_error(fault: ProviderFault, status: int, pause_ms: int | None) -> ProviderStatus:
    return ProviderStatus(status, fault.message, retryable=_is_retryable(fault), retry_after_ms=pause_ms)


def stream_error(fault: ProviderFault) -> ProviderErrorInStream:
    """Return the error of a stream. Its status is the one that the error means: the response's own was 2xx."""
    error = ProviderErrorInStream(fault.message, retryable=_is_retryable(fault))
    error.status = fault.status
    return error


def _is_retryable(fault: ProviderFault) -> bool:
    return fault.status in RETRIED_STATUSES and not fault.exhausted_quota


def timeout_error(clock: Clock, planned: PlannedStep) -> BridgeError:
    """Return the error for the clock that interrupted a step."""
    settings, slug = planned.step.settings, planned.provider.slug
    match clock:
        case Clock.CONNECT:
            return ConnectTimeout(f"{slug}: no connection within {settings.connect_timeout} ms (connectTimeout)")
        case Clock.REQUEST:
            return NoAnswerInTime(f"{slug}: no answer within {settings.request_timeout} ms (requestTimeout)")
        case Clock.IDLE:
            return IdleTimeout(f"{slug}: silent for {settings.idle_timeout} ms (idleTimeout)")
        case _:
            return total_timeout()


def total_timeout() -> TotalTimeout:
    return TotalTimeout("the event was not over within its totalTimeout")
