"""Frames of one iteration of the loop leave in one write, in order, and memory stays bounded."""

import asyncio
from itertools import pairwise
from typing import cast

import pytest

from bridge.protocol.frames import LongFrame
from bridge.server.outbox import LONG_BYTES, Outbox
from tests.support.clock import run_until_idle, turns

LONG = b"x" * LONG_BYTES


class Transport:
    """Records writes."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
async def outbox(transport: Transport) -> Outbox:
    return Outbox(cast("asyncio.Transport", transport))


def decoded(data: bytes) -> list[bytes]:
    """Return the payloads of text frames."""
    payloads = []
    while data:
        assert data[0] == 0x81
        length_bytes = {126: 2, 127: 8}.get(data[1], 0)
        begin = 2 + length_bytes
        end = begin + (int.from_bytes(data[2:begin]) if length_bytes else data[1])
        assert end <= len(data)
        payloads.append(data[begin:end])
        data = data[end:]
    return payloads


async def test_frames_of_all_events_in_one_iteration_leave_in_one_write_in_order(
    outbox: Outbox, transport: Transport
) -> None:
    loop = asyncio.get_running_loop()
    for event in range(3):
        loop.call_soon(outbox.send, [b"%d first" % event, b"%d second" % event])
        loop.call_soon(outbox.send_one, [b"%d" % event, b" ", b"last"])
    await turns(1)
    assert transport.writes == []
    await run_until_idle()
    assert len(transport.writes) == 1
    assert decoded(transport.writes[0]) == [
        b"%d %s" % (event, part) for event in range(3) for part in (b"first", b"second", b"last")
    ]


async def test_each_iteration_with_data_has_one_write(outbox: Outbox, transport: Transport) -> None:
    for count in range(1, 6):
        outbox.send([b"a"] * count)
        outbox.send([b"b"])
        await turns(1)
        assert len(transport.writes) == count
    await run_until_idle()
    assert len(transport.writes) == 5


async def test_one_flush_is_scheduled_for_many_sends(outbox: Outbox, transport: Transport) -> None:
    before = len(asyncio.get_running_loop()._ready)  # type: ignore[attr-defined]  # asyncio has no public access to it
    for _ in range(100):
        outbox.send([b"a"])
        outbox.flush()
    assert len(asyncio.get_running_loop()._ready) == before + 1  # type: ignore[attr-defined]  # as above


async def test_nothing_to_send_schedules_no_write(outbox: Outbox, transport: Transport) -> None:
    before = len(asyncio.get_running_loop()._ready)  # type: ignore[attr-defined]  # asyncio has no public access to it
    outbox.send([])
    outbox.flush()
    assert len(asyncio.get_running_loop()._ready) == before  # type: ignore[attr-defined]  # as above
    assert transport.writes == []


SIZES = [0, 1, 125, 126, 1023, 1024, 65_535, 65_536, 200_000]


@pytest.mark.parametrize("size", SIZES)
async def test_a_frame_has_the_header_of_its_size(outbox: Outbox, transport: Transport, size: int) -> None:
    outbox.send([b"x" * size])
    outbox.send_one([b"y" * size])
    outbox.send([LongFrame([b"z" * (size // 2), b"", b"z" * (size - size // 2)])])
    outbox.flush()
    assert decoded(b"".join(transport.writes)) == [letter * size for letter in (b"x", b"y", b"z")]
    assert outbox.written_bytes == len(b"".join(transport.writes))


async def test_long_parts_are_written_behind_what_is_queued_without_a_copy(
    outbox: Outbox, transport: Transport
) -> None:
    outbox.send([b"before", LONG, b"between", LongFrame([b"{", LONG, LONG, b"}"])])
    outbox.send_one([b"[", LONG, b"]"])
    await run_until_idle()
    assert sum(each is LONG for each in transport.writes) == 4
    assert not any(one is not LONG and other is not LONG for one, other in pairwise(transport.writes))
    assert decoded(b"".join(transport.writes)) == [
        b"before",
        LONG,
        b"between",
        b"{" + LONG + LONG + b"}",
        b"[" + LONG + b"]",
    ]


async def test_a_full_queue_is_written_at_once(outbox: Outbox, transport: Transport) -> None:
    """So the transport pauses the writers before much more is made."""
    for _ in range(100):
        outbox.send([b"x" * 10_000])
        assert outbox.queued_bytes < LONG_BYTES
    assert len(transport.writes) == 14
    outbox.send([b"x" * 60_000] * 50)
    outbox.send([LongFrame([b"x" * 60_000] * 3)])
    assert outbox.queued_bytes == 0


async def test_queued_and_written_bytes_count_headers_too(outbox: Outbox, transport: Transport) -> None:
    outbox.send([b"x" * 10, b"x" * 1000])
    assert (outbox.queued_bytes, outbox.written_bytes) == (12 + 1004, 0)
    outbox.flush()
    assert (outbox.queued_bytes, outbox.written_bytes) == (0, 12 + 1004)


async def test_a_flush_writes_at_once_and_leaves_nothing_for_later(outbox: Outbox, transport: Transport) -> None:
    outbox.send([b"now"])
    outbox.flush()
    assert [decoded(data) for data in transport.writes] == [[b"now"]]
    await run_until_idle()
    assert len(transport.writes) == 1


async def test_the_end_writes_what_is_queued_and_drops_what_follows(outbox: Outbox, transport: Transport) -> None:
    outbox.send([b"last"])
    outbox.end()
    outbox.send([b"late", LONG])
    outbox.send_one([b"{", LONG, b"}"])
    outbox.end()
    await run_until_idle()
    assert [decoded(data) for data in transport.writes] == [[b"last"]]
    assert (outbox.queued_bytes, outbox.written_bytes) == (0, 6)


async def test_output_for_a_closing_transport_is_dropped_and_not_counted(outbox: Outbox, transport: Transport) -> None:
    outbox.send([b"queued before it closed"])
    transport.closing = True
    outbox.send([b"late", LONG])
    await run_until_idle()
    assert transport.writes == []
    assert (outbox.queued_bytes, outbox.written_bytes) == (0, 0)
