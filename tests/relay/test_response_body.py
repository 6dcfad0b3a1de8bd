"""Receiving one response body: in one piece, as a stream, and what is counted and kept of it."""

import asyncio
from typing import cast

import httpx
import pytest

from bridge.errors import OutOfMemoryBudget, ResetBeforeAnswer
from bridge.formats.decoders import Shape
from bridge.relay.deadlines import Interrupt
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.response_body import ResponseBody
from bridge.relay.stream_relay import StreamRelay
from bridge.relay.wakeup import Wakeup
from tests.support.clock import run_until_idle
from tests.support.receivers import FedResponse

JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)
IMAGE = (("content-type", "image/png"),)
"""Known from the first byte to be no stream."""


class FakeStream:
    """Takes the place of a StreamRelay; it is over at the body's end."""

    def __init__(self, shape: Shape, head: bytes, wakeup: Wakeup) -> None:
        self.shape = shape
        self.reads = [head]
        self.is_over = False
        self._wakeup = wakeup

    def data(self, data: bytes) -> None:
        self.reads.append(data)

    def end(self) -> None:
        self.is_over = True
        self._wakeup.set()

    async def catch_up(self) -> None:
        """Do nothing: it is never behind."""


class Receiving:
    """One body that is being received."""

    def __init__(self, answer: FedResponse, *, max_bytes: int | None = None, budget_bytes: int = 1 << 20) -> None:
        self.answer = answer
        self.reservation = MemoryReservation(MemoryBudget(budget_bytes, "this socket"))
        self.body = ResponseBody(
            answer,
            "/v1/chat/completions",
            self.reservation,
            Interrupt(),
            lambda *started: cast("StreamRelay", FakeStream(*started)),
            may_stream=True,
            max_bytes=max_bytes,
        )
        self.task = asyncio.ensure_future(self.body.receive())

    @property
    def stream(self) -> FakeStream:
        assert self.body.stream is not None
        return cast("FakeStream", self.body.stream)


async def test_a_body_in_one_piece_is_collected_and_counted() -> None:
    received = Receiving(FedResponse(headers=JSON))
    await run_until_idle()
    received.answer.arrive(b'{"a":', b"1}")
    received.answer.finish()
    await received.task
    assert (received.body.body, received.body.stream, received.reservation.size) == (b'{"a":1}', None, 7)


async def test_a_stream_takes_over_within_the_read_that_shows_it() -> None:
    received = Receiving(FedResponse(headers=SSE))
    await run_until_idle()
    received.answer.arrive(b"data: {}\n\n")
    assert (received.stream.shape, received.stream.reads) == (Shape.SSE, [b"data: {}\n\n"])
    received.answer.arrive(b"data: {}\n\n")
    received.answer.finish()
    await received.task
    assert len(received.stream.reads) == 2


async def test_a_body_over_the_limit_is_streamed_and_its_bytes_stay_counted() -> None:
    """A client that does not read holds them in memory."""
    received = Receiving(FedResponse(headers=IMAGE), max_bytes=10)
    await run_until_idle()
    received.answer.arrive(b"\x89PNG12", b"3456789!")
    assert (received.stream.shape, received.stream.reads) == (Shape.BYTES, [b"\x89PNG123456789!"])
    received.answer.finish()
    await received.task
    assert received.reservation.size == 14


async def test_a_body_that_does_not_fit_the_budget_is_refused_and_not_counted() -> None:
    received = Receiving(FedResponse(headers=IMAGE), budget_bytes=10)
    await run_until_idle()
    received.answer.arrive(b"\x89PNG12", b"3456789!", b"more")
    with pytest.raises(OutOfMemoryBudget):
        await received.task
    assert received.reservation.size == 0


async def test_a_break_before_the_client_knows_of_the_body_is_no_answer() -> None:
    received = Receiving(FedResponse(headers=IMAGE))
    await run_until_idle()
    received.answer.arrive(b"\x89PNG")
    received.answer.cut(httpx.ReadError("cut"))
    with pytest.raises(ResetBeforeAnswer, match="cut"):
        await received.task
    assert received.reservation.size == 0
