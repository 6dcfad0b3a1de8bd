"""Decide the close frames and the error at the end of a session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Draining, OutOfMemoryBudget
from bridge.server.realtime import close as closing
from bridge.server.realtime.close import CloseFrame, SessionEnd, Side

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4999]
UNSENDABLE = [0, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


def own(end: SessionEnd, by: Side) -> CloseFrame | None:
    return end.client if by == "client" else end.provider


def others(end: SessionEnd, by: Side) -> CloseFrame | None:
    return end.provider if by == "client" else end.client


BOTH = pytest.mark.parametrize("by", ["client", "provider"])


@BOTH
@pytest.mark.parametrize("code", SENDABLE)
def test_code_and_reason_are_passed_on_and_the_code_is_echoed(by: Side, code: int) -> None:
    end = closing.closed(by, code, "why")
    assert (others(end, by), own(end, by), end.by, end.code) == (CloseFrame(code, "why"), CloseFrame(code), by, code)
    assert end.has_close_frame


@BOTH
@pytest.mark.parametrize("code", UNSENDABLE)
def test_an_unsendable_code_is_replaced_for_the_other_side_and_answered_with_1002(by: Side, code: int) -> None:
    end = closing.closed(by, code, "")
    assert others(end, by) == CloseFrame(1011, f"the {by} closed with {code}")
    assert own(end, by) == CloseFrame(1002)
    assert others(closing.closed(by, code, "why"), by) == CloseFrame(1011, "why")


@BOTH
def test_a_close_frame_without_a_code_is_a_normal_close(by: Side) -> None:
    end = closing.closed(by, closing.NO_CODE, "")
    assert (others(end, by), own(end, by), end.error) == (CloseFrame(1000), CloseFrame(1000), None)


@BOTH
def test_the_loss_of_a_side_closes_the_other_with_1011(by: Side) -> None:
    end = closing.lost(by)
    assert (own(end, by), others(end, by)) == (None, CloseFrame(1011, f"the connection to the {by} was lost"))


@BOTH
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1002, "violated the WebSocket protocol"),
        (1007, "violated the WebSocket protocol"),
        (1009, "sent a message that is too long"),
    ],
)
def test_a_protocol_error_closes_the_other_side_with_1011(by: Side, code: int, reason: str) -> None:
    end = closing.protocol_error(by, code)
    text = f"the {by} {reason}"
    assert (own(end, by), others(end, by)) == (CloseFrame(code, text), CloseFrame(1011, text))


@BOTH
def test_a_slow_side_is_closed_with_1008_and_the_other_with_1011(by: Side) -> None:
    end = closing.slow(by)
    assert own(end, by) == CloseFrame(1008, "too slow")
    assert others(end, by) == CloseFrame(1011, f"the {by} read nothing for too long")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (closing.idle(), 1001),
        (closing.too_long(), 1001),
        (closing.drained(), 1012),
        (closing.failed(), 1011),
        (closing.revoked(Draining("x")), 1008),
        (closing.out_of_memory(OutOfMemoryBudget("x")), 1013),
    ],
)
def test_an_end_by_the_bridge_gives_the_client_a_reason_and_the_provider_1001(end: SessionEnd, code: int) -> None:
    assert end.by is None
    assert end.client is not None
    assert (end.client.code, bool(end.client.reason)) == (code, True)
    assert end.provider == CloseFrame(1001)
    assert end.error is not None


@pytest.mark.parametrize(
    ("code", "is_error"), [(1000, False), (1001, False), (1005, False), (1011, True), (4001, True)]
)
def test_a_provider_that_closes_with_an_error_code_has_failed(code: int, is_error: bool) -> None:
    assert (closing.closed("provider", code, "").error is not None) == is_error


def test_any_end_by_a_client_is_no_error() -> None:
    """A missing close frame is no error, as with closed tabs and stopped programs."""
    assert closing.closed("client", 4001, "").error is None
    assert closing.lost("client").error is None
    assert closing.lost("provider").error is not None


def test_a_key_in_a_providers_reason_is_redacted() -> None:
    error = closing.closed("provider", 4001, "Incorrect API key provided: sk-0123456789abcdef").error
    assert "Incorrect API key" in str(error)
    assert "0123456789abcdef" not in str(error)


@given(st.sampled_from(SENDABLE), st.text(max_size=200))
def test_a_close_frame_holds_at_most_125_bytes_and_whole_characters(code: int, reason: str) -> None:
    payload = CloseFrame(code, reason).payload
    assert len(payload) <= 125
    assert int.from_bytes(payload[:2], "big") == code
    text = payload[2:].decode()
    assert reason.encode(errors="replace").decode().startswith(text)
    assert len(text) == len(reason) or len(payload) > 125 - 4
