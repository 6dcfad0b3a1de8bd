"""Answers as a whole and as their chunks come, over a running bridge."""

import asyncio
import copy
import pickle

import orjson
import pytest

from bridge.client import Chunk, EventFailed, Step, Usage, connect
from tests.support.client_harness import QUERY, bridged, serving
from tests.support.clock import turns
from tests.support.event_harness import COMPLETE, DONE, FINISH, OVERLOADED, ROLE, USAGE, content
from tests.support.provider_script import RESET, SILENCE, ScriptedResponse, answers, refuses, streams

CHAT = ("openai", "chat/completions", QUERY)
COMPLETION = b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'


async def test_an_answer_in_one_piece() -> None:
    async with bridged(answers(COMPLETION)) as (bridge, provider):
        answer = await bridge.request(*CHAT, headers={"authorization": "Bearer k", "x-mine": "1"})
    assert answer.response["choices"][0]["message"]["content"] == answer.text == "Hi"
    assert (answer.usage, answer.cost, answer.items) == (Usage(3, 1, None, 4), None, ())
    assert (answer.metadata.step, answer.metadata.provider, answer.metadata.status) == ("0", "openai", 200)
    [received] = provider.requests
    assert received.url == "https://api.openai.com/v1/chat/completions"
    assert orjson.loads(received.content) == QUERY
    assert (received.headers["authorization"], received.headers["x-mine"]) == ("Bearer k", "1")


async def test_a_request_whose_answer_is_streamed_collects_its_items() -> None:
    async with bridged(streams(ROLE, content("Hel"), content("lo"), FINISH, USAGE, DONE)) as (bridge, _):
        answer = await bridge.request(*CHAT)
    assert (answer.response, answer.text, len(answer.items)) == (None, "Hello", 5)
    assert answer.usage == Usage(3, 2, None, 5)


async def test_a_stream_gives_chunks_as_they_come_and_its_usage_after_its_end() -> None:
    gate = asyncio.Event()
    async with bridged(streams(content("Hel"), gate, content("lo"), FINISH, USAGE, DONE)) as (bridge, _):
        async with bridge.stream(*CHAT) as stream:
            assert stream.metadata.provider == "openai"
            assert (await anext(stream)).text == "Hel"
            assert stream.usage is None
            gate.set()
            rest = [chunk async for chunk in stream]
        assert [chunk.text for chunk in rest] == ["lo", "", ""]
        assert rest[1].response["choices"][0]["finish_reason"] == "stop"
        assert (stream.usage, stream.metadata.chunks, stream.is_streamed) == (Usage(3, 2, None, 5), 4, True)
        assert [chunk async for chunk in stream] == []


async def test_a_streams_answer_in_one_piece_is_one_chunk() -> None:
    async with bridged(answers(COMPLETION)) as (bridge, _), bridge.stream(*CHAT) as stream:
        assert [chunk.text async for chunk in stream] == ["Hi"]
        assert (stream.is_streamed, stream.usage, stream.cost) == (False, Usage(3, 1, None, 4), None)


async def test_a_chunk_has_all_that_its_item_had() -> None:
    items = (
        b'event: named\nid: 7\ndata: {"a":1}\n\n',
        b"data: plain\n\n",
        b"data: {no json\n\n",
    )
    async with bridged(streams(*items)) as (bridge, _), bridge.stream(*CHAT) as stream:
        assert [chunk async for chunk in stream] == [
            Chunk({"a": 1}, event="named", id="7"),
            Chunk("plain"),
            Chunk("{no json", malformed=True),
        ]


async def test_audio_is_bytes() -> None:
    audio = bytes(range(256))
    async with bridged(*[streams(audio, content_type="audio/mpeg")] * 2) as (bridge, _):
        assert [chunk.response for chunk in (await bridge.request(*CHAT)).items] == [audio]
        async with bridge.stream(*CHAT) as stream:
            assert b"".join([chunk.response async for chunk in stream]) == audio


async def test_an_image_in_one_piece_is_bytes_too() -> None:
    async with bridged(ScriptedResponse([b"\xff\xd8"], content_type="image/jpeg")) as (bridge, _):
        assert (await bridge.request(*CHAT)).response == b"\xff\xd8"


async def test_many_at_once_on_one_socket() -> None:
    names = [f"name-{number}" for number in range(50)]
    async with bridged(*[streams(*map(content, "hello"), FINISH, DONE)] * 50) as (bridge, _):
        found = await asyncio.gather(*[bridge.request(*CHAT, event_id=name) for name in names])
    assert [(answer.metadata.event_id, answer.text) for answer in found] == [(name, "hello") for name in names]


async def test_more_than_the_bridge_takes_at_once_wait_for_room() -> None:
    async with bridged(*[streams(*COMPLETE)] * 600) as (bridge, _):
        found = await asyncio.gather(*[bridge.request(*CHAT) for _ in range(600)])
    assert [answer.text for answer in found] == ["Hello"] * 600


async def test_room_is_given_back_by_those_that_are_left_fail_or_cannot_begin() -> None:
    plays = *[streams(content("a"), SILENCE)] * 3, *[refuses()] * 3, answers()
    async with serving(*plays) as (url, provider, _), connect(url, max_in_flight=2) as bridge:
        for number in range(3):
            async with bridge.stream(*CHAT, event_id=number):
                with pytest.raises(ValueError, match=str(number)):
                    await bridge.request(*CHAT, event_id=number)
        for _ in range(3):
            with pytest.raises(EventFailed):
                await bridge.request(*CHAT)
        assert (await bridge.request(*CHAT)).response == {"ok": True}
        await provider.requests[0].closed.wait()


async def test_one_that_waits_for_room_may_be_given_up() -> None:
    plays = streams(content("a"), SILENCE), answers()
    async with serving(*plays) as (url, provider, _), connect(url, max_in_flight=1) as bridge:
        async with bridge.stream(*CHAT):
            waiting = asyncio.create_task(bridge.request(*CHAT))
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert (await bridge.request(*CHAT)).response == {"ok": True}
    assert len(provider.requests) == 2


async def test_a_fallback_answers_where_the_first_step_does_not() -> None:
    """Each step has its own headers, for they may be credentials; the settings are for all, but for its own."""
    plays = answers(b"{}", 503), answers(b"{}", 503), streams(*COMPLETE)
    async with bridged(*plays) as (bridge, provider):
        answer = await bridge.request(
            *CHAT,
            headers={"authorization": "Bearer first"},
            config={"maxAttempts": 2, "retryDelay": 0},
            fallback=[
                Step("groq", "chat/completions", QUERY, headers={"x-second": "1"}),
                {"provider": "mistral", "endpoint": "v1/chat/completions", "query": QUERY},
            ],
        )
    assert (answer.text, answer.metadata.step, answer.metadata.provider) == ("Hello", "1", "groq")
    assert [(tried.step, tried.status) for tried in answer.metadata.attempts] == [("0", 503), ("0", 503), ("1", 200)]
    assert "authorization" not in provider.requests[2].headers
    assert provider.requests[2].headers["x-second"] == "1"


async def test_leaving_a_stream_early_closes_the_providers_connection_and_the_socket_goes_on() -> None:
    async with bridged(streams(content("a"), SILENCE), answers()) as (bridge, provider):
        async with bridge.stream(*CHAT) as stream:
            async for chunk in stream:
                assert chunk.text == "a"
                break
        await provider.requests[0].closed.wait()
        assert (await bridge.request(*CHAT)).response == {"ok": True}


async def test_a_request_that_is_cancelled_closes_it_too() -> None:
    async with bridged(streams(content("a"), SILENCE)) as (bridge, provider):
        request = asyncio.create_task(bridge.request(*CHAT))
        while not provider.requests:
            await turns(1)
        request.cancel()
        await provider.requests[0].closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_an_http_error_is_an_exception_with_the_providers_body() -> None:
    body = b'{"error":{"message":"slow down"}}'
    async with bridged(answers(body, 429, retry_after="2")) as (bridge, _):
        with pytest.raises(EventFailed, match="429: slow down") as failed:
            await bridge.request(*CHAT)
    error = failed.value
    assert (error.code, error.status, error.source, error.retryable) == (429, 429, "provider", True)
    assert (error.retry_after_ms, error.response) == (2000, orjson.loads(body))
    assert error.metadata.headers is not None
    assert error.metadata.headers["retry-after"] == "2"


async def test_where_no_provider_answered_it_is_the_bridges_error() -> None:
    async with bridged(refuses()) as (bridge, _):
        with pytest.raises(EventFailed) as failed:
            await bridge.stream(*CHAT).open()
    error = failed.value
    assert (error.code, error.status, error.source, error.retryable) == (9010, 502, "provider", True)
    assert error.response["name"] == "AiGatewayError"


async def test_a_bad_request_is_the_clients_fault() -> None:
    async with bridged() as (bridge, _):
        with pytest.raises(EventFailed, match=r"steps\[0\]") as failed:
            await bridge.request("openai", "chat/completions", QUERY, headers={"bad name": "x"})
        with pytest.raises(EventFailed, match="9001"):
            await bridge.request("openai", "chat/completions", b"{")
    assert (failed.value.code, failed.value.source, failed.value.retryable) == (9003, "client", False)


async def test_a_stream_that_breaks_raises_behind_its_chunks() -> None:
    async with bridged(streams(content("a"), RESET), streams(content("a"), RESET)) as (bridge, _):
        async with bridge.stream(*CHAT) as stream:
            assert (await anext(stream)).text == "a"
            with pytest.raises(EventFailed) as failed:
                await anext(stream)
        assert (failed.value.code, failed.value.status, failed.value.response) == (9016, 200, None)
        assert stream.metadata.success is False
        with pytest.raises(EventFailed, match="9016"):
            await bridge.request(*CHAT)


async def test_an_error_item_is_the_last_chunk_before_the_exception() -> None:
    async with bridged(streams(content("a") + OVERLOADED)) as (bridge, _), bridge.stream(*CHAT) as stream:
        await anext(stream)
        assert (await anext(stream)).response["error"]["type"] == "overloaded_error"
        with pytest.raises(EventFailed, match="9017: too busy"):
            await anext(stream)


async def test_a_bridge_that_speaks_as_cloudflare_does_not_hide_a_break() -> None:
    async with serving(streams(content("a"), RESET)) as (url, _, _), connect(f"{url}?compat=cloudflare") as bridge:
        with pytest.raises(EventFailed, match="9016"):
            await bridge.request(*CHAT)


RESTART = [Step("groq", "chat/completions", QUERY)]


async def test_a_restart_is_reported_before_the_first_new_chunk() -> None:
    async with (
        bridged(streams(content("lost"), RESET), streams(*COMPLETE)) as (bridge, _),
        bridge.stream(*CHAT, config={"onBreak": "restart"}, fallback=RESTART) as stream,
    ):
        chunks = [chunk async for chunk in stream]
    assert [chunk.restarted for chunk in chunks] == [False, True, False, False, False]
    assert (chunks[1].response, chunks[1].text) == (None, "")
    assert "".join(chunk.text for chunk in chunks[2:]) == "Hello"
    assert (stream.metadata.step, stream.metadata.restarted) == ("1", True)


async def test_a_restart_with_an_answer_in_one_piece_is_one_chunk() -> None:
    async with (
        bridged(streams(content("lost"), RESET), answers(COMPLETION)) as (bridge, _),
        bridge.stream(*CHAT, config={"onBreak": "restart"}, fallback=RESTART) as stream,
    ):
        assert [(chunk.restarted, chunk.text) async for chunk in stream] == [(False, "lost"), (True, "Hi")]


@pytest.mark.parametrize(
    ("again", "items"), [(streams(*COMPLETE), 3), (answers(COMPLETION), 0), (streams(FINISH, DONE), 1)]
)
async def test_a_request_drops_what_came_before_a_restart(again: ScriptedResponse, items: int) -> None:
    async with bridged(streams(content("lost"), RESET), again) as (bridge, _):
        answer = await bridge.request(*CHAT, config={"onBreak": "restart"}, fallback=RESTART)
    assert "lost" not in answer.text
    assert len(answer.items) == items
    assert (answer.response is None) is bool(items)


async def test_an_unopened_stream_raises_and_a_stream_opens_only_once() -> None:
    async with bridged(streams(*COMPLETE)) as (bridge, _):
        stream = bridge.stream(*CHAT)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(stream)
        async with stream:
            with pytest.raises(RuntimeError, match="once"):
                await stream.open()
            assert (await stream.collect()).text == "Hello"
        never = bridge.stream(*CHAT)
        never.close()
        with pytest.raises(RuntimeError, match="once"):
            await never.open()


async def test_what_json_cannot_hold_raises_before_anything_is_sent() -> None:
    async with bridged(answers()) as (bridge, provider):
        for query in (object(), {1: 2}, "\ud83d"):
            with pytest.raises(TypeError):
                bridge.stream("openai", "chat/completions", query)
        assert (await bridge.request(*CHAT)).response == {"ok": True}
    assert len(provider.requests) == 1


async def test_bytes_of_json_reach_the_provider_as_they_are() -> None:
    async with bridged(answers()) as (bridge, provider):
        await bridge.request("openai", "chat/completions", b'{ "a": 1e400 }')
    assert provider.requests[0].content == b'{ "a": 1e400 }'


@pytest.mark.parametrize(("body", "sent"), [(b"\xff\x00", b"\xff\x00"), ("caf\u00e9", "caf\u00e9".encode())])
async def test_any_other_body_has_a_method_and_a_content_type(body: str | bytes, sent: bytes) -> None:
    async with bridged(answers()) as (bridge, provider):
        await bridge.request("openai", "files/a", method="PUT", body=body, headers={"content-type": "x/y"})
    assert (provider.requests[0].content, provider.requests[0].headers["content-type"]) == (sent, "x/y")


async def test_an_event_id_in_flight_is_refused_for_another_event() -> None:
    async with bridged(streams(content("a"), SILENCE), answers()) as (bridge, _):
        async with bridge.stream(*CHAT, event_id=7) as stream:
            with pytest.raises(ValueError, match="7"):
                await bridge.request(*CHAT, event_id=7)
            assert (await anext(stream)).text == "a"
        assert (await bridge.request(*CHAT)).response == {"ok": True}


async def test_errors_can_be_copied_and_pickled() -> None:
    """They cross processes, and several tasks raise copies of one."""
    async with bridged(answers(b"{}", 500)) as (bridge, _):
        with pytest.raises(EventFailed) as failed:
            await bridge.request(*CHAT)
    for twin in (copy.copy(failed.value), pickle.loads(pickle.dumps(failed.value))):
        assert (str(twin), twin.metadata, twin.response) == (str(failed.value), failed.value.metadata, {})
