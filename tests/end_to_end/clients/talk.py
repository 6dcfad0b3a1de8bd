"""The conversation that each external client has with a bridge, and the check of its frames.

It has a plain answer, a stream, an error, a cancelled stream and two concurrent streams, over tapes without a clock.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx

from bridge.server.server import Server
from bridge.tapes.transport import TapeTransport
from tests.support.harness import Frame, config_of, running
from tests.support.paths import FIXTURES

TAPES = FIXTURES / "tapes"

TOKEN = "a-token-of-the-talk"

Message = dict[str, Any]
Turn = dict[str, list[Message]]


def _create(event_id: str, provider: str, endpoint: str, query: Message) -> Message:
    request = {"eventId": event_id, "provider": provider, "endpoint": endpoint, "query": query}
    return {"type": "universal.create", "request": request}


def _chat(event_id: str, says: str, provider: str = "openai", model: str = "gpt-4o-mini", **beside: object) -> Message:
    query = {"model": model, "messages": [{"role": "user", "content": says}], **beside}
    endpoint = "v1/messages" if provider == "anthropic" else "chat/completions"
    return _create(event_id, provider, endpoint, query)


def _long(event_id: str) -> Message:
    return _chat(event_id, "Say hello.", "groq", "llama-3.3-70b-versatile", stream=True)


def turns() -> list[Turn]:
    """Return the turns: messages to send, and messages to send after the turn's first `universal.stream`."""
    return [
        {"send": [_chat("plain", "Say hello.")], "onStream": []},
        {
            "send": [_chat("stream", "Say hello.", "anthropic", "claude-sonnet-4-5", max_tokens=256, stream=True)],
            "onStream": [],
        },
        {"send": [_chat("error", "Say hello with a wrong key.", stream=True)], "onStream": []},
        {
            "send": [_chat("cancelled", "Say hello, and fall silent in the middle.", stream=True)],
            "onStream": [{"type": "universal.cancel", "eventId": "cancelled"}],
        },
        {"send": [_long("left"), _long("right")], "onStream": []},
    ]


def judge(frames: Sequence[Frame]) -> None:
    """Check the frames of the conversation. Raise AssertionError if one is wrong."""
    events = {name: [f for f in frames if f["metadata"]["eventId"] == name] for name in _JUDGES}
    assert sum(map(len, events.values())) == len(frames)
    for name, judged in _JUDGES.items():
        judged(events[name])
    pieces = [f["metadata"]["eventId"] for f in frames if f["type"] == "universal.stream"]
    in_step = [name for name in pieces if name in {"left", "right"}]
    assert {frozenset(pair) for pair in zip(in_step[::2], in_step[1::2], strict=True)} == {frozenset({"left", "right"})}


def _judge_plain(frames: list[Frame]) -> None:
    (created,) = frames
    assert created["response"]["choices"][0]["message"]["content"] == "Hello! The line is clear."
    assert (created["metadata"]["step"], created["metadata"]["contentType"]) == ("0", "application/json")


def _judge_stream(frames: list[Frame]) -> None:
    _judge_whole(frames)
    deltas = [frame["response"].get("delta", {}) for frame in frames[1:-1]]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello, and mind the gap."


def _judge_error(frames: list[Frame]) -> None:
    (created,) = frames
    assert created["response"]["error"]["code"] == "invalid_api_key"
    assert (created["metadata"]["status"], created["metadata"]["success"]) == (401, False)
    assert created["error"]["source"] == "provider"


def _judge_cancelled(frames: list[Frame]) -> None:
    assert _shape(frames) == ["universal.created", "universal.stream", "universal.error"]
    assert (frames[-1]["error"]["code"], frames[-1]["metadata"]["success"]) == (9020, False)


def _judge_whole(frames: list[Frame]) -> None:
    assert _shape(frames) == ["universal.created", "universal.stream", "universal.done"]
    assert frames[-1]["metadata"]["success"] is True
    assert frames[-1]["metadata"]["chunks"] == len(frames) - 2


def _shape(frames: list[Frame]) -> list[str]:
    return [kind for kind, _ in groupby(frame["type"] for frame in frames)]


_JUDGES = {
    "plain": _judge_plain,
    "stream": _judge_stream,
    "error": _judge_error,
    "cancelled": _judge_cancelled,
    "left": _judge_whole,
    "right": _judge_whole,
}


class Tapes(httpx.AsyncBaseTransport):
    """Plays Groq's streams in pairs and in lockstep, and all other tapes instantly."""

    def __init__(self) -> None:
        pair = asyncio.Barrier(2)
        self._instant = TapeTransport(TAPES, pace="instant")
        self._in_step = TapeTransport(TAPES / "groq", now=lambda: 0.0, sleep=lambda _: pair.wait())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tapes = self._in_step if request.url.host == "api.groq.com" else self._instant
        return await tapes.handle_async_request(request)


@asynccontextmanager
async def bridge(folder: Path, allowed_origins: Sequence[str] = ()) -> AsyncIterator[Server]:
    """Run a bridge over the tapes with the gateways `tokened` and `open`."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    text = f"""
        [gateways.tokened.tokens]
        talk = "sha256:{digest}"
        [gateways.open]
        allowed_origins = {list(allowed_origins)}
    """
    async with running(config_of(text, folder), Tapes()) as server:
        yield server
