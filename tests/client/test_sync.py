"""The synchronous twin: the same client, for callers that wait."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from bridge.client import CannotConnect, ConnectionLost, EventFailed
from bridge.client.sync import SyncBridge, connect
from tests.support.client_harness import QUERY, serving
from tests.support.event_harness import COMPLETE, content
from tests.support.provider_script import RESET, SILENCE, ScriptedProvider, ScriptedResponse, answers, streams

T = TypeVar("T")
CHAT = ("openai", "chat/completions", QUERY)


@asynccontextmanager
async def using(
    *plays: ScriptedResponse,
) -> AsyncIterator[tuple[Callable[[Callable[[SyncBridge], T]], Any], ScriptedProvider]]:
    """Runs a caller in a thread of its own, with a bridge that is served by this one."""

    async def use(caller: Callable[[SyncBridge], T]) -> T:
        def call() -> T:
            with connect(url) as bridge:
                return caller(bridge)

        return await asyncio.to_thread(call)

    async with serving(*plays) as (url, provider, _):
        yield use, provider


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "bridge client"]


async def test_a_request_gives_an_answer() -> None:
    async with using(answers(b'{"choices":[{"message":{"content":"Hi"}}]}')) as (use, provider):
        answer = await use(lambda bridge: bridge.request(*CHAT, headers={"authorization": "Bearer k"}))
    assert (answer.text, answer.metadata.step) == ("Hi", "0")
    assert provider.requests[0].headers["authorization"] == "Bearer k"
    assert threads() == []


async def test_a_stream_is_a_plain_iterator() -> None:
    def ask(bridge: SyncBridge) -> tuple[list[str], Any]:
        with bridge.stream(*CHAT, event_id="mine") as stream:
            texts = [chunk.text for chunk in stream]
            assert next(stream, None) is None
        return texts, stream

    async with using(streams(*COMPLETE)) as (use, _):
        texts, stream = await use(ask)
    assert "".join(texts) == "Hello"
    assert (stream.id, stream.is_streamed, stream.usage, stream.cost) == ("mine", True, None, None)
    assert stream.metadata.success


async def test_what_is_left_of_a_stream_can_be_collected() -> None:
    def ask(bridge: SyncBridge) -> tuple[str, str]:
        with bridge.stream(*CHAT) as stream:
            next(stream)
            return next(stream).text, stream.collect().text

    async with using(streams(content("un"), content("do"), content("es"), *COMPLETE)) as (use, _):
        assert await use(ask) == ("do", "esHello")


async def test_an_exchange_gives_bytes() -> None:
    def ask(bridge: SyncBridge) -> tuple[int, bytes, bytes, str]:
        with bridge.exchange({"provider": "openai", "endpoint": "chat/completions", "query": QUERY}) as exchange:
            assert exchange.is_from_provider
            assert exchange.error is None
            assert exchange.metadata.provider == "openai"
            return exchange.status, next(exchange), exchange.read(), exchange.headers["content-type"]

    async with using(streams(content("a"), *COMPLETE)) as (use, _):
        status, first, rest, content_type = await use(ask)
    assert (status, first + rest, content_type) == (200, content("a") + b"".join(COMPLETE), "text/event-stream")


async def test_an_event_gives_frames_and_can_be_cancelled() -> None:
    def ask(bridge: SyncBridge) -> list[str]:
        with bridge.create({"provider": "openai", "endpoint": "chat/completions"}) as event:
            kinds = [next(event).type, next(event).type]
            event.cancel()
            return kinds + [frame.type for frame in event]

    async with using(streams(content("a"), SILENCE)) as (use, _):
        assert await use(ask) == ["created", "stream", "error"]


async def test_leaving_a_stream_early_cancels_it() -> None:
    def ask(bridge: SyncBridge) -> None:
        with bridge.stream(*CHAT) as stream:
            for _ in stream:
                break
        assert bridge.request(*CHAT).response == {"ok": True}

    async with using(streams(content("a"), SILENCE), answers()) as (use, provider):
        await use(ask)
        await provider.requests[0].closed.wait()


async def test_errors_are_those_of_the_asynchronous_client() -> None:
    def ask(bridge: SyncBridge) -> tuple[EventFailed, EventFailed]:
        with pytest.raises(EventFailed) as refused:
            bridge.request(*CHAT)
        with bridge.stream(*CHAT) as stream, pytest.raises(EventFailed) as broken:
            list(stream)
        with pytest.raises(TypeError):
            bridge.request("openai", "chat/completions", object())
        return refused.value, broken.value

    async with using(answers(b"{}", 429), streams(content("a"), RESET)) as (use, _):
        refused, broken = await use(ask)
    assert (refused.code, broken.code) == (429, 9016)


async def test_threads_may_share_a_bridge() -> None:
    def ask(bridge: SyncBridge) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda _: bridge.request(*CHAT).text, range(20)))

    async with using(*[streams(*COMPLETE)] * 20) as (use, _):
        assert await use(ask) == ["Hello"] * 20


async def test_it_works_where_a_loop_is_running_already() -> None:
    """As in a notebook."""

    async with using(answers()) as (use, _):

        async def cell(bridge: SyncBridge) -> object:
            return bridge.request(*CHAT).response

        assert await use(lambda bridge: asyncio.run(cell(bridge))) == {"ok": True}


async def test_a_failed_connection_leaves_no_thread() -> None:
    with pytest.raises(CannotConnect, match="invalid WebSocket URL"):
        await asyncio.to_thread(connect, "nowhere")
    assert threads() == []


async def test_a_closed_bridge_raises_and_closing_is_idempotent() -> None:
    def ask(bridge: SyncBridge) -> None:
        stream = bridge.stream(*CHAT).open()
        bridge.close()
        bridge.close()
        stream.close()
        with pytest.raises(ConnectionLost, match="this client closed the socket"):
            bridge.request(*CHAT)

    async with using(streams(content("a"), SILENCE)) as (use, provider):
        await use(ask)
        await provider.requests[0].closed.wait()


async def test_closing_ends_what_another_thread_waits_for() -> None:
    def ask(bridge: SyncBridge) -> BaseException | None:
        with ThreadPoolExecutor(1) as pool, bridge.stream(*CHAT) as stream:
            next(stream)
            waiting = pool.submit(next, stream)
            bridge.close()
            return waiting.exception()

    async with using(streams(content("a"), SILENCE)) as (use, _):
        assert isinstance(await use(ask), ConnectionLost)


UNCLOSED = """
import sys
from bridge.client.sync import connect
print(connect(sys.argv[1]).request("openai", "chat/completions", {}).response)
"""


async def test_a_script_that_closes_nothing_ends_all_the_same() -> None:
    async with serving(answers()) as (url, _, _):
        script = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UNCLOSED, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert await script.communicate() == (b"{'ok': True}\n", b"")
        assert script.returncode == 0


SCRIPT = """
import sys
from bridge.client.sync import connect
with connect(sys.argv[1]) as bridge, bridge.stream("openai", "chat/completions", {}) as stream:
    for chunk in stream:
        print(chunk.text, flush=True)
"""


async def test_ctrl_c_cancels_the_event_and_the_script_ends() -> None:
    async with serving(streams(content("a"), SILENCE)) as (url, provider, _):
        script = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert script.stdout is not None
        assert await script.stdout.readline() == b"a\n"
        os.kill(script.pid, signal.SIGINT)
        _, stderr = await script.communicate()
        await provider.requests[0].closed.wait()
    assert script.returncode == -signal.SIGINT
    assert stderr.endswith(b"KeyboardInterrupt\n")
