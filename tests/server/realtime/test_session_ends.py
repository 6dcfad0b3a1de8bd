"""End sessions over sockets: each end of one side, and the close frame of the other."""

import asyncio
from pathlib import Path

import pytest

from tests.support.raw_client import frame
from tests.support.realtime_harness import (
    CLOSE,
    TEXT,
    client_close_frame,
    close_payload,
    open_session,
    parse_close,
    server_frame,
)

MIRRORED = [
    (1000, b"done", (1000, "done")),
    (1001, b"", (1001, "")),
    (1008, b"policy", (1008, "policy")),
    (1011, b"Deadline expired", (1011, "Deadline expired")),
    (1012, b"", (1012, "")),
    (3000, b"", (3000, "")),
    (4001, "Grüße".encode(), (4001, "Grüße")),
    (4999, b"x" * 123, (4999, "x" * 123)),
    (None, b"", (1000, "")),
]
"""A close frame, and what the other side gets."""

INVALID = [(1006, b"no such frame may be"), (5000, b"nor such"), (65_535, b"nor such")]
REFUSED = [999, 1004, 1005, 1015, 1016, 2999]


@pytest.mark.parametrize(("code", "reason", "close_frame"), MIRRORED)
async def test_a_clients_close_frame_is_relayed_and_answered(
    tmp_path: Path, code: int | None, reason: bytes, close_frame: tuple[int, str]
) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(close_payload(code, reason), CLOSE))
        assert await side.close_frame() == close_frame
        await side.send(close_payload(close_frame[0]), CLOSE)
        assert await client_close_frame(client) == (close_frame[0], "")
        assert await client.read_to_end() == b""
        await side.line.gone()


@pytest.mark.parametrize(("code", "reason", "close_frame"), MIRRORED)
async def test_a_providers_close_frame_is_relayed_and_answered(
    tmp_path: Path, code: int | None, reason: bytes, close_frame: tuple[int, str]
) -> None:
    async with open_session(tmp_path) as (client, side):
        await side.send(close_payload(code, reason), CLOSE)
        assert await client_close_frame(client) == close_frame
        await client.send(frame(close_payload(close_frame[0]), CLOSE))
        assert await side.close_frame() == (close_frame[0], "")
        await side.line.gone()


@pytest.mark.parametrize(("code", "reason"), INVALID)
async def test_an_unsendable_close_code_is_replaced(tmp_path: Path, code: int, reason: bytes) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(close_payload(code, reason), CLOSE))
        assert await side.close_frame() == (1011, reason.decode())
        assert await client_close_frame(client) == (1002, "")
    async with open_session(tmp_path) as (client, side):
        await side.send(close_payload(code, reason), CLOSE)
        assert await client_close_frame(client) == (1011, reason.decode())
        assert await side.close_frame() == (1002, "")


@pytest.mark.parametrize(
    "broken",
    [
        *(frame(close_payload(code), CLOSE) for code in REFUSED),
        frame(b"\x03", CLOSE),
        frame(close_payload(1000, b"\xff"), CLOSE),
        frame(b"x", 3),
        frame(b"x", 0),
        frame(b"x" * 126, 9),
        b"\xc1\x80\x00\x00\x00\x00",
    ],
)
async def test_a_protocol_error_disconnects_its_side_and_closes_the_other_with_1011(
    tmp_path: Path, broken: bytes
) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(broken)
        close_frame = await client_close_frame(client)
        assert close_frame is not None
        assert close_frame[0] in {1002, 1007}
        assert await side.close_frame() == (1011, "the client violated the WebSocket protocol")
    async with open_session(tmp_path) as (client, side):
        await side.line.send(broken)
        assert await client_close_frame(client) == (1011, "the provider violated the WebSocket protocol")
        close_frame = await side.close_frame()
        assert close_frame is not None
        assert close_frame[0] in {1002, 1007}


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_lost_provider_closes_the_client_with_1011(tmp_path: Path, how: str) -> None:
    async with open_session(tmp_path) as (client, side):
        getattr(side.line, how)()
        assert await client_close_frame(client) == (1011, "the connection to the provider was lost")


async def test_a_lost_client_closes_the_provider_with_1011(tmp_path: Path) -> None:
    async with open_session(tmp_path) as (client, side):
        client.abort()
        assert await side.close_frame() == (1011, "the connection to the client was lost")


async def test_messages_before_a_close_frame_arrive_before_it(tmp_path: Path) -> None:
    async with open_session(tmp_path) as (client, side):
        await side.line.send(b"".join(server_frame(b"%d" % each) for each in range(20)))
        await side.send(close_payload(4000, b"that was it"), CLOSE)
        side.line.close()
        assert [await client.next_frame() for _ in range(20)] == [(TEXT, b"%d" % each) for each in range(20)]
        opcode, payload = await client.next_frame()
        assert (opcode, parse_close(payload)) == (CLOSE, (4000, "that was it"))


async def test_a_close_frame_is_read_even_if_the_connection_ends_with_it(tmp_path: Path) -> None:
    """A close frame and the end of the connection may arrive in one read."""
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(b"last") + frame(close_payload(4321, b"bye"), CLOSE))
        client.send_eof()
        assert await side.next_frame() == (TEXT, b"last")
        assert await side.close_frame() == (4321, "bye")


async def test_a_close_frame_counts_even_if_its_sender_reads_nothing_more(tmp_path: Path) -> None:
    """The other side has more messages than fit into the buffers."""
    async with open_session(tmp_path) as (client, side):
        client_says = asyncio.create_task(client.send(frame(b"x" * 20_000_000)))
        await side.send(b"a word")
        assert await client.next_frame() == (TEXT, b"a word")
        await side.send(close_payload(4002, b"enough"), CLOSE)
        assert await client_close_frame(client) == (4002, "enough")
        client_says.cancel()
