"""How a session ends: what each side is told, and what that is in the log. Pure."""

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
"""A close frame without a code. This one and the next are in no frame (RFC 6455, section 7.4.1)."""
LOST: Final = 1006
"""No close frame came."""
POLICY: Final = 1008
TOO_BIG: Final = 1009
BROKEN: Final = 1011
RESTART: Final = 1012
TRY_LATER: Final = 1013

_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
"""RFC 6455, section 7.4, and IANA's registry of close codes."""
_NORMAL_CODES: Final = frozenset({NORMAL, GOING_AWAY, NO_CODE})
"""A provider that leaves with one of these has reported no error."""

REASON_BYTES: Final = 123
"""RFC 6455, section 5.5: a control frame holds 125, of which the code takes two."""


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """A close frame to be sent."""

    code: int
    reason: str = ""

    @property
    def payload(self) -> bytes:
        """The reason is cut where it is too long, between two characters. `NO_CODE` is a frame without a code."""
        if self.code == NO_CODE:
            return b""
        reason = self.reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
        return self.code.to_bytes(2, "big") + reason.encode()


@dataclass(frozen=True, slots=True)
class SessionEnd:
    by: Side | None
    """Who ended it; None for the bridge."""
    code: int
    """That this one gave, or that stands for how it went."""
    client: CloseFrame | None
    provider: CloseFrame | None
    """What is said to each; None to one that is gone."""
    error: BridgeError | None = None
    has_close_frame: bool = False
    """`by` said it with a close frame: what it is told is the answer."""
    reason: str = ""
    """That it gave with it."""


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
    """It said goodbye: its code and its reason are the other's, and its answer."""
    error = None
    if by == "provider" and code not in _NORMAL_CODES:
        told = f": {redact_text(reason)}" if reason else ""
        error = ProviderErrorInStream(f"the provider closed the session with {code}{told}", retryable=False)
    return _end(
        by, code, CloseFrame(_answer(code)), mirrored(by, code, reason), error, has_close_frame=True, reason=reason
    )


def mirrored(by: Side, code: int, reason: str) -> CloseFrame:
    """What the other side is told. Codes that no frame may hold are replaced."""
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
    """Its connection ended without a close frame. Clients often leave so, which is no failure; providers do not."""
    what = f"the connection to the {by} was lost"
    return _end(by, LOST, None, CloseFrame(BROKEN, what), None if by == "client" else BrokenStream(what))


def protocol_error(by: Side, code: int) -> SessionEnd:
    """What it sent is no WebSocket's, or a message that is too long; `code` tells it which."""
    fault = "sent a message that is too long" if code == TOO_BIG else "broke the WebSocket protocol"
    what = f"the {by} {fault}"
    error = Cancelled(what) if by == "client" else UnusableAnswer(what)
    return _end(by, code, CloseFrame(code, what), CloseFrame(BROKEN, what), error)


def slow(by: Side) -> SessionEnd:
    """It took nothing for too long while messages waited for it."""
    what = f"the {by} took nothing for too long"
    error = SlowClient(what) if by == "client" else IdleTimeout(what)
    return _end(by, POLICY, CloseFrame(POLICY, "too slow"), CloseFrame(BROKEN, what), error)


def _ours(code: int, reason: str, error: BridgeError) -> SessionEnd:
    return SessionEnd(None, code, CloseFrame(code, reason), CloseFrame(GOING_AWAY), error)


def idle() -> SessionEnd:
    reason = "no message either way for too long"
    return _ours(GOING_AWAY, reason, IdleTimeout(reason))


def too_long() -> SessionEnd:
    reason = "the session has lasted as long as it may"
    return _ours(GOING_AWAY, reason, TotalTimeout(reason))


def drained() -> SessionEnd:
    return _ours(RESTART, "the bridge is shutting down", Draining("the bridge is shutting down"))


def revoked(error: BridgeError) -> SessionEnd:
    """The token or the gateway is gone."""
    return _ours(POLICY, "the token or the gateway was revoked", error)


def failed() -> SessionEnd:
    """By a defect of the bridge."""
    return _ours(BROKEN, "internal error", InternalError("internal error; the bridge's log tells more"))


def out_of_memory(error: OutOfMemoryBudget) -> SessionEnd:
    return _ours(TRY_LATER, "out of memory", error)
