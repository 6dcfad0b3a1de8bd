"""An HTTP exchange over the socket: the provider's status, its headers, and its body to the byte."""

import asyncio
import base64
from typing import Any

import pytest

from bridge.client import ConnectionLost, EventFailed, Exchange, Step, connect
from tests.support.client_harness import QUERY, after_message, bridged, crash, fake_bridge, serving
from tests.support.clock import turns
from tests.support.event_harness import COMPLETE, DONE, FINISH, OVERLOADED, content
from tests.support.provider_script import RESET, SILENCE, SSE, ScriptedResponse, answers, refuses, streams

STEP: dict[str, Any] = {"provider": "openai", "endpoint": "chat/completions", "query": QUERY}


async def test_a_stream_is_its_head_and_then_its_bytes_run_by_run() -> None:
    gate = asyncio.Event()
    play = ScriptedResponse([b": hi\n\n" + content("caf\u00e9"), gate, FINISH + DONE], headers={"x-request-id": "r"})
    async with bridged(play) as (bridge, _), bridge.exchange(STEP) as exchange:
        assert (exchange.status, exchange.headers["x-request-id"]) == (200, "r")
        assert exchange.headers["content-type"] == SSE
        assert exchange.is_from_provider
        assert exchange.error is None
        assert await anext(exchange) == b": hi\n\n" + content("caf\u00e9")
        gate.set()
        assert [run async for run in exchange] == [FINISH + DONE]
        assert (exchange.metadata.chunks, exchange.metadata.success) == (2, True)
        assert [run async for run in exchange] == []


BODIES: dict[str, tuple[bytes, str]] = {
    "JSON": (b' {"a": 1.0}\r\n', "application/json"),
    "JSON with half an emoji": (rb'{"a":"\ud83d"} ', "application/json"),
    "null": (b"null", "application/json"),
    "text": (b"1,2\r\n", "text/csv"),
    "text of another encoding": (b"caf\xe9", "text/plain; charset=latin-1"),
    "bytes": (bytes(range(256)) * 300, "image/png"),
    "nothing": (b"", "application/json"),
    "more than is encoded on the loop": (b'["' + b"x" * (2 << 20) + b'"]', "application/json"),
    "NDJSON": (b'{"a":1}\n\n{"a":2}', "application/x-ndjson"),
    "audio": (bytes(range(256)) * 300, "audio/mpeg"),
}


@pytest.mark.parametrize(("body", "content_type"), BODIES.values(), ids=BODIES)
async def test_the_body_is_the_providers_to_the_byte(body: bytes, content_type: str) -> None:
    reads = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    async with (
        bridged(ScriptedResponse(reads, content_type=content_type)) as (bridge, _),
        bridge.exchange(STEP) as exchange,
    ):
        assert await exchange.read() == body
        assert await exchange.read() == b""
        assert exchange.headers["content-type"] == content_type


@pytest.mark.parametrize("step", [STEP, Step("openai", "chat/completions", QUERY)])
async def test_a_step_is_one_of_the_wire_or_one_of_python(step: Any) -> None:
    async with bridged(answers()) as (bridge, provider), bridge.exchange(step) as exchange:
        assert await exchange.read() == b'{"ok":true}'
    assert provider.requests[0].content == b'{"model":"small","messages":[]}'


async def test_method_headers_and_any_body_reach_the_provider() -> None:
    body = bytes(range(256))
    step = {
        "provider": "openai",
        "endpoint": "v1/files/a?b=c",
        "method": "PUT",
        "headers": {"content-type": "multipart/form-data; boundary=x", "x-stainless": "1"},
        "body": base64.b64encode(body).decode(),
        "encoding": "base64",
    }
    async with bridged(answers()) as (bridge, provider), bridge.exchange(step) as exchange:
        await exchange.read()
    [received] = provider.requests
    assert (received.url, received.content) == ("https://api.openai.com/v1/files/a?b=c", body)
    assert received.headers["content-type"] == "multipart/form-data; boundary=x"
    assert received.headers["x-stainless"] == "1"


async def test_an_http_error_is_an_answer() -> None:
    body = b'{"error":{"message":"slow down"}}\n'
    async with bridged(answers(body, 429, retry_after="2")) as (bridge, _), bridge.exchange(STEP) as exchange:
        assert (exchange.status, exchange.headers["retry-after"]) == (429, "2")
        assert exchange.is_from_provider
        assert exchange.error is not None
        assert (exchange.error.code, exchange.error.retry_after_ms) == (429, 2000)
        assert await exchange.read() == body


async def test_without_an_answer_the_bridges_own_error_is_one() -> None:
    async with bridged(refuses()) as (bridge, _), bridge.exchange(STEP) as exchange:
        assert (exchange.status, exchange.headers) == (502, {})
        assert not exchange.is_from_provider
        assert exchange.error is not None
        assert (exchange.error.code, exchange.error.source, exchange.error.retryable) == (9010, "provider", True)
        assert b'"internalCode":9010' in await exchange.read()


async def test_an_invalid_request_is_answered_with_an_error() -> None:
    async with bridged() as (bridge, _), bridge.exchange({"provider": "nobody", "endpoint": ""}) as exchange:
        assert exchange.error is not None
        assert (exchange.status, exchange.error.code, exchange.error.source) == (400, 2008, "client")


async def extend(runs: list[bytes], exchange: Exchange) -> None:
    async for run in exchange:
        runs.append(run)


@pytest.mark.parametrize(("end", "code", "status"), [(RESET, 9016, 200), (OVERLOADED, 9017, 503)])
async def test_a_body_that_breaks_raises_behind_what_came_of_it(end: Any, code: int, status: int) -> None:
    async with bridged(streams(content("a"), end)) as (bridge, _), bridge.exchange(STEP) as exchange:
        runs: list[bytes] = []
        with pytest.raises(EventFailed) as failed:
            await extend(runs, exchange)
        assert b"".join(runs) == content("a") + (end if isinstance(end, bytes) else b"")
        assert (failed.value.code, failed.value.status, failed.value.response) == (code, status, None)


async def test_a_fallback_answers_raw_and_a_broken_answer_is_not_restarted() -> None:
    """Whatever the gateway or the steps say: bytes that were handed on cannot be taken back."""
    step = {**STEP, "config": {"onBreak": "restart", "frames": "items", "maxAttempts": 1}}
    plays = refuses(), streams(content("a"), RESET), streams(*COMPLETE)
    async with bridged(*plays) as (bridge, provider):
        async with bridge.exchange(step, fallback=[Step("groq", "chat/completions", QUERY), step]) as exchange:
            assert await anext(exchange) == content("a")
            with pytest.raises(EventFailed):
                await anext(exchange)
        assert (exchange.metadata.step, exchange.metadata.provider) == ("1", "groq")
        assert len(provider.requests) == 2


async def test_leaving_early_closes_the_providers_connection() -> None:
    async with bridged(streams(content("a"), SILENCE)) as (bridge, provider):
        async with bridge.exchange(STEP) as exchange:
            await anext(exchange)
        await provider.requests[0].closed.wait()


async def test_giving_up_before_the_head_closes_it_too() -> None:
    async with bridged(ScriptedResponse(before_head=[SILENCE])) as (bridge, provider):
        opening = asyncio.create_task(bridge.exchange(STEP).open())
        while not provider.requests:
            await turns(1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await provider.requests[0].closed.wait()


async def test_it_can_be_opened_and_closed_apart() -> None:
    async with bridged(streams(*COMPLETE)) as (bridge, _):
        exchange = await bridge.exchange(STEP, event_id="mine").open()
        assert exchange.id == "mine"
        assert await exchange.read() == b"".join(COMPLETE)
        exchange.close()
        exchange.close()


async def test_a_connection_that_is_lost_raises() -> None:
    async with fake_bridge(after_message(crash), reconnect=False) as (bridge, _):
        with pytest.raises(ConnectionLost):
            await bridge.exchange(STEP).open()


async def test_a_request_that_can_be_none_raises() -> None:
    """Such as an eventId that is too long: the bridge's answer names no event."""
    async with serving() as (url, _, _), connect(url) as bridge:
        with pytest.raises(EventFailed) as failed:
            await bridge.exchange(STEP, event_id="x" * 257).open()
    assert (failed.value.code, failed.value.status) == (9003, None)
