"""The frames that the page on the protocol shows are those that a bridge sends."""

from pathlib import Path

import orjson

from tests.support.clock import advance
from tests.support.examples import blocks
from tests.support.harness import Frame, config_of, connected, running
from tests.support.provider_script import SILENCE, ScriptedProvider, answers, streams

PATH = "/v1/0123456789abcdef0123456789abcdef/gateway"
SHOWN: list[Frame] = [orjson.loads(text) for text in blocks("protocol", "json")]
REQUEST, GET, CHAIN = (message for message in SHOWN if message.get("type") == "universal.create")
CREATED = next(frame for frame in SHOWN if frame.get("type") == "universal.created")
ITEM, RUN = (frame for frame in SHOWN if frame.get("type") == "universal.stream")
FAILED, OWNERLESS = (frame for frame in SHOWN if frame.get("type") == "universal.error")
CANCEL = next(message for message in SHOWN if message.get("type") == "universal.cancel")
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STREAM = (CHUNK, b"data: [DONE]\n\n")


async def test_an_answer_in_one_piece_is_the_frame_shown(tmp_path: Path) -> None:
    [frame] = await frames_of(tmp_path, REQUEST, ScriptedProvider(answers(orjson.dumps(CREATED["response"]))))
    assert frame["type"] == "universal.created"
    assert frame["response"] == CREATED["response"]
    assert CREATED["metadata"].keys() <= frame["metadata"].keys()
    same = ("eventId", "cacheStatus", "step", "contentType")
    assert [frame["metadata"][name] for name in same] == [CREATED["metadata"][name] for name in same]


async def test_a_step_may_use_any_method(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers(b'{"data":[]}'))
    [frame] = await frames_of(tmp_path, GET, provider)
    assert frame["metadata"]["eventId"] == GET["request"]["eventId"]
    assert provider.requests[0].url == "https://api.openai.com/v1/models"
    assert provider.requests[0].content == b""


async def test_the_chain_falls_back_to_its_second_step(tmp_path: Path) -> None:
    provider = ScriptedProvider(answers(b"{}", 401), streams(*STREAM))
    first, item, last = await frames_of(tmp_path, CHAIN, provider)
    assert (first["metadata"]["step"], last["type"]) == ("1", "universal.done")
    assert item.keys() == ITEM.keys()
    assert item["metadata"] == {"eventId": CHAIN["request"]["eventId"]}


async def test_a_run_of_the_body_has_the_members_shown(tmp_path: Path) -> None:
    raw = {**CHAIN, "request": {**CHAIN["request"], "config": {"frames": "raw"}}}
    _, run, *_ = await frames_of(tmp_path, raw, ScriptedProvider(streams(*STREAM)))
    assert run.keys() == RUN.keys()
    assert run["encoding"] == RUN["encoding"]


async def test_a_stream_that_falls_silent_ends_with_the_frame_shown(tmp_path: Path) -> None:
    step = {"eventId": "my-request", "provider": "openai", "endpoint": "chat/completions", "query": {"stream": True}}
    message = {"type": "universal.create", "request": {**step, "config": {"idleTimeout": 5000}}}
    provider = ScriptedProvider(streams(CHUNK, SILENCE))
    async with running(config_of("", tmp_path), provider) as server, connected(server, PATH) as client:
        await client.send(message)
        await client.receive()
        await client.receive()
        advance(5)
        [*_, last] = await client.until_last("my-request")
    assert last.keys() == FAILED.keys()
    assert {**last["error"], "message": "…"} == {**FAILED["error"], "message": "…"}
    assert FAILED["metadata"].keys() <= last["metadata"].keys()


async def test_a_message_that_cannot_own_an_event_gets_the_frame_shown(tmp_path: Path) -> None:
    provider = ScriptedProvider(streams(SILENCE))
    async with running(config_of("", tmp_path), provider) as server, connected(server, PATH) as client:
        await client.send(REQUEST)
        await client.send(REQUEST)
        refused = await client.receive()
        await client.send(CANCEL)
        [cancelled] = await client.until_last(CANCEL["eventId"])
    assert refused.keys() == OWNERLESS.keys()
    assert refused["metadata"] == OWNERLESS["metadata"]
    assert refused["error"].keys() == OWNERLESS["error"].keys()
    assert refused["error"]["code"] == OWNERLESS["error"]["code"]
    assert (cancelled["type"], cancelled["error"]["code"]) == ("universal.error", 9020)


async def frames_of(folder: Path, message: Frame, provider: ScriptedProvider) -> list[Frame]:
    """Send a message of the page; return the frames of its event."""
    async with running(config_of("", folder), provider) as server, connected(server, PATH) as client:
        await client.send(message)
        return await client.until_last(message["request"]["eventId"])
