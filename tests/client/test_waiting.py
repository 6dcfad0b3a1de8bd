"""Frames that wait to be taken: how many are kept, whom they hold up, and for how long."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from bridge.client import EventFailed, Stream
from bridge.client.connection import MAX_BLOCKING_S
from bridge.client.frame_queue import MAX_QUEUED_BYTES
from tests.support.client_harness import QUERY, Script, after_message, bridged, fake_bridge, frame
from tests.support.clock import advance, turns
from tests.support.event_harness import FINISH, content
from tests.support.provider_script import streams

CHAT = ("openai", "chat/completions", QUERY)
BIG = "x" * (MAX_QUEUED_BYTES // 4)


def flood(frames: int, said_then: list[Any]) -> Script:
    """So many large frames for `slow`, then the last one for `quick`; and what the client says meanwhile."""

    async def play(socket: web.WebSocketResponse) -> None:
        await socket.send_json(frame("created", "slow"))
        listening = asyncio.create_task(_listen(socket, said_then))
        for _ in range(frames):
            await socket.send_json(frame("stream", "slow", response=BIG))
        await socket.send_json(frame("created", "quick", response="here"))
        await socket.send_json(frame("done", "slow"))
        await listening

    return after_message(play)


async def _listen(socket: web.WebSocketResponse, expecteds: list[Any]) -> None:
    async for message in socket:
        expecteds.append(message.json())


async def held_up(slow: Stream) -> None:
    """Until as much waits for it as may, and the socket is not read."""
    while not slow._event._queue.is_full:
        await turns(1)
    await turns()


async def test_an_unread_event_blocks_others_until_it_is_closed() -> None:
    async with fake_bridge(flood(8, []), reconnect=False) as (bridge, _):
        async with bridge.stream(*CHAT, event_id="slow") as slow:
            waiting = asyncio.create_task(bridge.request(*CHAT, event_id="quick"))
            await held_up(slow)
            assert not waiting.done()
        assert (await waiting).response == "here"


async def test_others_do_not_wait_for_ever_behind_it() -> None:
    """It is cancelled, and told so behind what waited for it; the others go on."""
    messages: list[Any] = []
    async with (
        fake_bridge(flood(8, messages), reconnect=False) as (bridge, _),
        bridge.stream(*CHAT, event_id="slow") as slow,
    ):
        waiting = asyncio.create_task(bridge.request(*CHAT, event_id="quick"))
        await held_up(slow)
        advance(MAX_BLOCKING_S)
        assert (await waiting).response == "here"
        assert [(await anext(slow)).response for _ in range(4)] == [BIG] * 4
        with pytest.raises(EventFailed, match="9021: other events waited for 10 s behind its frames") as failed:
            await anext(slow)
        assert (failed.value.source, failed.value.status) == ("client", 499)
        await turns()
        assert messages[1:] == [{"type": "universal.cancel", "eventId": "slow"}]


async def test_a_slow_consumer_is_kept_if_no_other_event_waits() -> None:
    """As long as the bridge lets it; the bridge's own patience is a minute."""
    async with fake_bridge(flood(8, []), reconnect=False) as (bridge, _), bridge.stream(*CHAT, event_id="slow") as slow:
        await held_up(slow)
        for _ in range(20):
            advance(MAX_BLOCKING_S)
            await turns()
        assert [chunk.response async for chunk in slow] == [BIG] * 8


async def test_one_that_is_slow_but_keeps_up_is_not_given_up() -> None:
    """It takes more than half of what waits before the others' patience ends, and once more."""
    async with fake_bridge(flood(8, []), reconnect=False) as (bridge, _), bridge.stream(*CHAT, event_id="slow") as slow:
        waiting = asyncio.create_task(bridge.request(*CHAT, event_id="quick"))
        for _ in range(2):
            await held_up(slow)
            advance(MAX_BLOCKING_S - 1)
            assert [(await anext(slow)).response for _ in range(3)] == [BIG] * 3
        assert (await waiting).response == "here"
        assert [chunk.response async for chunk in slow] == [BIG] * 2


async def test_a_frame_larger_than_the_limit_is_accepted() -> None:
    async def play(socket: web.WebSocketResponse) -> None:
        await socket.send_json(frame("created", "large", response=BIG * 8))
        await socket.receive()

    async with fake_bridge(after_message(play), reconnect=False) as (bridge, _):
        assert (await bridge.request(*CHAT, event_id="large")).response == BIG * 8


async def test_two_streams_can_be_consumed_in_sequence() -> None:
    play = streams(*[content("word ")] * 1000, FINISH)
    async with bridged(play, play) as (bridge, _), bridge.stream(*CHAT) as one, bridge.stream(*CHAT) as two:
        for stream in (two, one):
            assert "".join([chunk.text async for chunk in stream]) == "word " * 1000
