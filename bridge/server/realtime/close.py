"""Decide the end of a session: the close frame for each side, and the error in the log. Pure."""

from dataclasses import dataclass
from typing import Final, Literal

from bridge.errors import (
    BridgeError,
    BrokenStream,
    Cancelled,
    Draining,
    IdleTimeout,
    InternalError,
    OutOfMemoryBudget,
    ProviderErrorInStream,
    SlowClient,
    TotalTimeout,
    UnusableAnswer,
)
from bridge.redact.text import redact_text

Side = Literal["client", "provider"]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
"""Reports a close frame without a code. No frame holds this code or the next one (RFC 6455, section 7.4.1)."""
LOST: Final = 1006
"""Reports that no close frame was received."""
POLICY: Final = 1008
TOO_BIG: Final = 1009
BROKEN: Final = 1011
RESTART: Final = 1012
TRY_LATER: Final = 1013

_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
"""Codes that a close frame may hold (RFC 6455, section 7.4, and IANA's registry of close codes)."""
_NORMAL_CODES: Final = frozenset({NORMAL, GOING_AWAY, NO_CODE})
"""A provider that closes with one of these codes reports no error."""

REASON_BYTES: Final = 123
"""The maximum of a reason: a control frame holds 125 bytes, and the code takes two (RFC 6455, section 5.5)."""


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """A close frame to send."""

    code: int
    reason: str = ""

    @property
    def payload(self) -> bytes:
        """The bytes of the frame. A long reason is cut between two characters; `NO_CODE` gives an empty payload."""
        if self.code == NO_CODE:
            return b""
        reason = self.reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
        return self.code.to_bytes(2, "big") + reason.encode()


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The end of a session and its consequences."""

    by: Side | None
    """The side that ended the session; None for the bridge."""
    code: int
    """The close code of that side, or the code for the way in which the session ended."""
    client: CloseFrame | None
    provider: CloseFrame | None
    """The close frames to send; None for a side that is disconnected."""
    error: BridgeError | None = None
    has_close_frame: bool = False
    """True if `by` sent a close frame; the frame that it receives is then the answer."""
    reason: str = ""
    """The reason in the close frame of `by`."""


def _end(
    by: Side,
    code: int,
    own: CloseFrame | None,
    other: CloseFrame,
    error: BridgeError | None,
    *,
    has_close_frame: bool = False,
    reason: str = "",
) -> SessionEnd:
    client, provider = (own, other) if by == "client" else (other, own)
    return SessionEnd(by, code, client, provider, error, has_close_frame, reason)


def closed(by: Side, code: int, reason: str) -> SessionEnd:
    """Return the end by a close frame: the other side gets the same code and reason, and `by` gets an answer."""
    error = None
    if by == "provider" and code not in _NORMAL_CODES:
        detail = f": {redact_text(reason)}" if reason else ""
        error = ProviderErrorInStream(f"the provider closed the session with {code}{detail}", retryable=False)
    return _end(
        by, code, CloseFrame(_answer(code)), mirrored(by, code, reason), error, has_close_frame=True, reason=reason
    )


def mirrored(by: Side, code: int, reason: str) -> CloseFrame:
    """Return the close frame for the other side. Codes that no frame may hold are replaced."""
    if code == NO_CODE:
        return CloseFrame(NORMAL, reason)
    return (
        CloseFrame(code, reason) if code in _SENDABLE else CloseFrame(BROKEN, reason or f"the {by} closed with {code}")
    )


def _answer(code: int) -> int:
    if code == NO_CODE:
        return NORMAL
    return code if code in _SENDABLE else PROTOCOL_ERROR


def lost(by: Side) -> SessionEnd:
    """Return the end by a lost connection. Clients often leave like this, so only a provider's loss is an error."""
    reason = f"the connection to the {by} was lost"
    return _end(by, LOST, None, CloseFrame(BROKEN, reason), None if by == "client" else BrokenStream(reason))


def protocol_error(by: Side, code: int) -> SessionEnd:
    """Return the end by an invalid frame or a message that is too long; `code` names which."""
    fault = "sent a message that is too long" if code == TOO_BIG else "violated the WebSocket protocol"
    reason = f"the {by} {fault}"
    error = Cancelled(reason) if by == "client" else UnusableAnswer(reason)
    return _end(by, code, CloseFrame(code, reason), CloseFrame(BROKEN, reason), error)


def slow(by: Side) -> SessionEnd:
    """Return the end by a side that read nothing for too long while messages were queued for it."""
    reason = f"the {by} read nothing for too long"
    error = SlowClient(reason) if by == "client" else IdleTimeout(reason)
    return _end(by, POLICY, CloseFrame(POLICY, "too slow"), CloseFrame(BROKEN, reason), error)


def _end_by_bridge(code: int, reason: str, error: BridgeError) -> SessionEnd:
    return SessionEnd(None, code, CloseFrame(code, reason), CloseFrame(GOING_AWAY), error)


def idle() -> SessionEnd:
    reason = "no message was sent for too long"
    return _end_by_bridge(GOING_AWAY, reason, IdleTimeout(reason))


def too_long() -> SessionEnd:
    reason = "the session has reached its maximum duration"
    return _end_by_bridge(GOING_AWAY, reason, TotalTimeout(reason))


def drained() -> SessionEnd:
    return _end_by_bridge(RESTART, "the bridge is shutting down", Draining("the bridge is shutting down"))


def revoked(error: BridgeError) -> SessionEnd:
    """Return the end by a token or gateway that was removed."""
    return _end_by_bridge(POLICY, "the token or the gateway was revoked", error)


def failed() -> SessionEnd:
    """Return the end by a defect of the bridge."""
    return _end_by_bridge(BROKEN, "internal error", InternalError("internal error; see the bridge's log"))


def out_of_memory(error: OutOfMemoryBudget) -> SessionEnd:
    return _end_by_bridge(TRY_LATER, "out of memory", error)
