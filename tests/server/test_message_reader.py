"""Read WebSocket messages as aiohttp's parser does, long ones incrementally."""

import asyncio
import os
import random
from typing import Any

import pytest
from aiohttp import WebSocketError, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.server import message_reader
from bridge.server.message_reader import SHORT_FRAME_BYTES, MessageReader
from tests.support.clock import advance, turns, until

MAX_BYTES = 2_000_000
LONG = SHORT_FRAME_BYTES + 1


MASK = b"\x01\x80\xff\x00"


def frame(payload: bytes, opcode: int = WSMsgType.TEXT, *, last: bool = True, mask: bytes | None = MASK) -> bytes:
    size = len(payload)
    second = 0x80 if mask is not None else 0
    if size < 126:
        length = bytes([second | size])
    elif size < 65_536:
        length = bytes([second | 126]) + size.to_bytes(2)
    else:
        length = bytes([second | 127]) + size.to_bytes(8)
    if mask is not None:
        long_mask = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload) ^ int.from_bytes(long_mask)).to_bytes(size)
    return bytes([(0x80 if last else 0) | opcode]) + length + (mask or b"") + payload


class Line:
    """Feeds bytes to a reader and collects its messages."""

    def __init__(self, *, ours: bool, queue_bytes: int = 1 << 30) -> None:
        loop = asyncio.get_running_loop()
        self.handler = BaseProtocol(loop)
        self.handler._upgraded = True
        self.handler.transport = asyncio.Transport()
        self.queue = WebSocketDataQueue(self.handler, queue_bytes, loop=loop)
        self._theirs = WebSocketReader(self.queue, MAX_BYTES, compress=False, decode_text=False)
        self.parser: Any = self._theirs
        if ours:
            parts: Any = self._theirs, self.queue, self.handler
            self.parser = MessageReader(*parts, MAX_BYTES)

    async def messages_of(self, parts: list[bytes]) -> list[tuple[int, object, object]]:
        """Return the messages, and the code of the error that ended them."""
        for part in parts:
            self.parser.feed_data(part)
        found: list[tuple[int, object, object]] = []
        try:
            while self.queue._buffer:
                found.append(tuple(await self.queue.read()))  # type: ignore[arg-type]  # a named tuple
            if (error := self.queue.exception()) is not None:
                raise error
        except WebSocketError as error:
            found.append((WSMsgType.ERROR, error.code, None))
        return found


def any_frame(size: int, opcode: int, last: bool, mask: bytes | None) -> bytes:
    """Generate frames, without a first frame that is empty, which aiohttp does not count as the start of a message."""
    return frame((b"0123456789abc" * 20_000)[: size if last else size or 1], opcode, last=last, mask=mask)


FRAMES = st.tuples(
    st.sampled_from([0, 1, 120, 126, 90_000, 200_000]),
    st.sampled_from([0, 1, 2, 0, 1, 2, 8, 9, 10, 3, 0x41]),
    st.booleans(),
    st.sampled_from([bytes(4), MASK, None]),
)


@settings(max_examples=100, deadline=None)
@given(drawn=st.lists(FRAMES, min_size=1, max_size=6), seed=st.integers(0, 1_000))
def test_any_split_of_the_input_gives_the_messages_of_aiohttp(
    drawn: list[tuple[int, int, bool, bytes | None]], seed: int
) -> None:
    data = b"".join(any_frame(*each) for each in drawn)
    cuts = sorted(random.Random(seed).choices(range(len(data) + 1), k=5))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    async def both() -> tuple[object, object]:
        return await Line(ours=True).messages_of(parts), await Line(ours=False).messages_of([data])

    ours, theirs = asyncio.run(both())
    assert ours == theirs


async def test_single_bytes_give_the_same_messages() -> None:
    fragments = frame(b"b" * 200, last=False) + frame(b"", 9) + frame(b"c" * 300, 0)
    data = frame(b"a" * 100) + fragments + frame(os.urandom(99), 2)
    parts = [data[at : at + 1] for at in range(len(data))]
    assert await Line(ours=True).messages_of(parts) == await Line(ours=False).messages_of([data])


async def test_each_call_handles_only_newly_received_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []
    unmask = message_reader.websocket_mask

    def counting(mask: bytes, data: bytearray) -> None:
        handled.append(len(data))
        unmask(mask, data)

    monkeypatch.setattr(message_reader, "websocket_mask", counting)
    line = Line(ours=True)
    fed: list[int] = []
    theirs = line._theirs.feed_data

    class Counting:
        def feed_data(self, data: bytes) -> tuple[bool, bytes]:
            fed.append(len(data))
            return theirs(data)

    line.parser._parser = Counting()
    data = frame(b"x" * 300_000) + frame(b"y" * 100_000, last=False) + frame(b"z" * 200_000, 0)
    found = await line.messages_of([data[at : at + 16_384] for at in range(0, len(data), 16_384)])
    assert [len(message[1]) for message in found] == [300_000, 300_000]  # type: ignore[arg-type]  # they are bytes
    assert max(handled) <= 16_384
    assert sum(handled) == 600_000
    assert max(fed, default=0) <= 16_384


async def test_discarded_messages_are_not_kept_and_a_close_frame_is_read() -> None:
    line = Line(ours=True)
    data = frame(b"x" * 200_000)
    line.parser.feed_data(data[:100_000])
    line.parser.discard()
    assert line.parser._message.getbuffer().nbytes == 0
    found = await line.messages_of([data[100_000:], frame(b"y" * LONG), frame(b"\x03\xe8bye", WSMsgType.CLOSE)])
    assert found == [(WSMsgType.CLOSE, 1000, "bye")]


async def test_a_long_message_waits_for_those_before_it() -> None:
    """aiohttp's parser holds messages back while its queue is full."""
    line = Line(ours=True, queue_bytes=1_000)
    expected = [b"%d" % each for each in range(100)] + [b"x" * LONG, b"last"]
    line.parser.feed_data(b"".join(map(frame, expected)))
    assert line.queue._stalled_reader is not None
    found = []
    while len(found) < len(expected):
        await until(lambda: line.queue._buffer)
        found.append((await line.queue.read()).data)
    assert found == expected


async def test_a_waiting_message_is_dropped_when_the_connection_is_lost() -> None:
    line = Line(ours=True, queue_bytes=1_000)
    line.parser.feed_data(frame(b"x") * 100 + frame(b"x" * LONG))
    line.handler.transport = None
    advance(0.02)
    await turns(3)
    assert line.queue._stalled_reader is not None
