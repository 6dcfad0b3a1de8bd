"""How a session ends, over sockets: what one side says or does, and what the other is told."""

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


@pytest.mark.parametrize(("code", "reason", "told"), MIRRORED)
async def test_a_clients_goodbye_is_the_providers_and_is_answered(
    tmp_path: Path, code: int | None, reason: bytes, told: tuple[int, str]
) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(close_payload(code, reason), CLOSE))
        assert await side.close_frame() == told
        await side.send(close_payload(told[0]), CLOSE)
        assert await client_close_frame(client) == (told[0], "")
        assert await client.read_to_end() == b""
        await side.line.gone()


@pytest.mark.parametrize(("code", "reason", "told"), MIRRORED)
async def test_a_providers_goodbye_is_the_clients_and_is_answered(
    tmp_path: Path, code: int | None, reason: bytes, told: tuple[int, str]
) -> None:
    async with open_session(tmp_path) as (client, side):
        await side.send(close_payload(code, reason), CLOSE)
        assert await client_close_frame(client) == told
        await client.send(frame(close_payload(told[0]), CLOSE))
        assert await side.close_frame() == (told[0], "")
        await side.line.gone()


@pytest.mark.parametrize(("code", "reason"), INVALID)
async def test_a_code_that_may_not_be_sent_is_replaced(tmp_path: Path, code: int, reason: bytes) -> None:
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
async def test_who_breaks_the_protocol_is_told_and_let_go_of_and_the_other_gets_1011(
    tmp_path: Path, broken: bytes
) -> None:
    async with open_session(tmp_path) as (client, side):
        await client.send(broken)
        told = await client_close_frame(client)
        assert told is not None
        assert told[0] in {1002, 1007}
        assert await side.close_frame() == (1011, "the client violated the WebSocket protocol")
    async with open_session(tmp_path) as (client, side):
        await side.line.send(broken)
        assert await client_close_frame(client) == (1011, "the provider violated the WebSocket protocol")
        told = await side.close_frame()
        assert told is not None
        assert told[0] in {1002, 1007}


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_lost_provider_is_1011_to_the_client(tmp_path: Path, how: str) -> None:
    async with open_session(tmp_path) as (client, side):
        getattr(side.line, how)()
        assert await client_close_frame(client) == (1011, "the connection to the provider was lost")


async def test_a_lost_client_is_1011_to_the_provider(tmp_path: Path) -> None:
    async with open_session(tmp_path) as (client, side):
        client.abort()
        assert await side.close_frame() == (1011, "the connection to the client was lost")


async def test_what_was_said_before_a_goodbye_comes_before_it(tmp_path: Path) -> None:
    async with open_session(tmp_path) as (client, side):
        await side.line.send(b"".join(server_frame(b"%d" % each) for each in range(20)))
        await side.send(close_payload(4000, b"that was it"), CLOSE)
        side.line.close()
        assert [await client.next_frame() for _ in range(20)] == [(TEXT, b"%d" % each) for each in range(20)]
        opcode, payload = await client.next_frame()
        assert (opcode, parse_close(payload)) == (CLOSE, (4000, "that was it"))


async def test_a_goodbye_counts_though_the_connection_goes_with_it(tmp_path: Path) -> None:
    """A goodbye and the connection's end may come in one read."""
    async with open_session(tmp_path) as (client, side):
        await client.send(frame(b"last") + frame(close_payload(4321, b"bye"), CLOSE))
        client.send_eof()
        assert await side.next_frame() == (TEXT, b"last")
        assert await side.close_frame() == (4321, "bye")


async def test_who_says_goodbye_and_takes_nothing_more_has_said_it(tmp_path: Path) -> None:
    """Though the other side has more to say than goes through, and would be heard."""
    async with open_session(tmp_path) as (client, side):
        client_says = asyncio.create_task(client.send(frame(b"x" * 20_000_000)))
        await side.send(b"a word")
        assert await client.next_frame() == (TEXT, b"a word")
        await side.send(close_payload(4002, b"enough"), CLOSE)
        assert await client_close_frame(client) == (4002, "enough")
        client_says.cancel()
