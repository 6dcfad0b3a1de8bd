"""Long items and answers: no call of the loop handles more than 1 MiB of them."""

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from bridge.errors import Cancelled
from bridge.formats import json_text, long_json, response, stream_reader
from bridge.formats.long_block import LongBlock
from bridge.formats.long_item import LongBody, LongItem
from bridge.formats.long_message import LongMessage
from bridge.protocol import frames
from tests.support.aws_eventstream import event as aws_event
from tests.support.event_harness import DONE, FINISH, ROLE, EventHarness, ScriptedRuntime, content, step
from tests.support.event_harness import Sink as HarnessSink
from tests.support.provider_script import JSON, SILENCE, Part, ScriptedResponse, streams

MIB = 1 << 20
READ_BYTES = 65_536


class CallbackBytes:
    """Counts the bytes that the processing functions of an item receive in each callback of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._callback = 0
        self._counts: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        run = asyncio.Handle._run

        def counted_run(handle: asyncio.Handle) -> None:
            self._callback += 1
            run(handle)

        monkeypatch.setattr(asyncio.Handle, "_run", counted_run)

    def count(self, owner: Any, name: str, size: Callable[..., int]) -> None:
        function = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._counts[self._callback] += size(*args)
            self.calls[name] += 1
            return function(*args, **kwargs)

        self._monkeypatch.setattr(owner, name, counted)

    @property
    def max(self) -> int:
        return max(self._counts.values())


@pytest.fixture
def callback_bytes(monkeypatch: pytest.MonkeyPatch) -> CallbackBytes:
    counted = CallbackBytes(monkeypatch)
    for owner, name in ((long_json, "_check"), (stream_reader, "parse"), (json_text, "is_json"), (frames, "is_json")):
        counted.count(owner, name, len)
    for kind in (LongItem, LongBody):
        counted.count(kind, "feed", lambda _, data: len(data))
    for part in (LongBlock, LongMessage):
        counted.count(part, "add", lambda _, data: len(data))
    counted.count(response, "_members_of", len)
    counted.count(HarnessSink, "send", lambda _, sent: sum(len(frame) for frame in sent if isinstance(frame, bytes)))
    return counted


def in_reads(*pieces: bytes) -> Iterator[Part]:
    body = b"".join(pieces)
    return (body[start : start + READ_BYTES] for start in range(0, len(body), READ_BYTES))


def long_json_of(size: int) -> bytes:
    return b'{"choices":[{"delta":{"content":"%b"}}]}' % (b"y" * size)


BODIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "SSE": (lambda text: b"data: %b\n\n" % text, "text/event-stream"),
    "SSE with CR LF and an id": (lambda text: b"id: 7\r\ndata: %b\r\n\r\n" % text, "text/event-stream"),
    "SSE behind comments": (lambda text: b": a\n" * MIB + b"data: %b\n\n" % text, "text/event-stream"),
    "bare JSON in SSE": (lambda text: b": a\n\n%b\n\n" % text, "text/event-stream"),
    "NDJSON": (lambda text: b"%b\n" % text, "application/x-ndjson"),
    "AWS event stream": (lambda text: aws_event("delta", text), "application/vnd.amazon.eventstream"),
    "Bedrock chunk": (
        lambda text: aws_event("chunk", b'{"bytes":"%b"}' % base64.b64encode(text)),
        "application/vnd.amazon.eventstream",
    ),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_no_callback_handles_more_than_1_mib_of_an_item(kind: str, callback_bytes: CallbackBytes) -> None:
    body, content_type = BODIES[kind]
    text = long_json_of(12 * MIB)
    scripted = streams(*in_reads(body(text)), content_type=content_type)
    event = await (await ScriptedRuntime(scripted, max_item_bytes=64 * MIB).event(step()).start()).wait_until_done()
    [frame] = [frame for frame in event.sink.raw if len(frame) > MIB]
    assert text in frame
    assert callback_bytes.calls["_check"] > 100
    assert callback_bytes.max <= MIB


async def test_no_callback_handles_more_than_1_mib_of_an_answer(callback_bytes: CallbackBytes) -> None:
    text = b'{"usage":{"prompt_tokens":3,"completion_tokens":5},"a":"%b"}' % (b"y" * 8 * MIB)
    event = ScriptedRuntime(ScriptedResponse(list(in_reads(text)), content_type=JSON)).event(step())
    sent: list[list[bytes]] = []
    event.sink.send_one = sent.append  # type: ignore[method-assign]  # keeps the parts separate, as a socket does
    await (await event.start()).wait_until_done()
    [parts] = sent
    assert text in parts
    usage = orjson.loads(parts[0].removesuffix(b',"response":') + b"}")["metadata"]["usage"]
    assert sorted(count for count in usage.values() if count) == [3, 5, 8]
    assert callback_bytes.max <= MIB


async def test_a_long_item_of_invalid_json_is_flagged() -> None:
    scripted = streams(*in_reads(b"data: %b,}\n\n" % long_json_of(MIB)), content("b"), FINISH, DONE)
    event = await (await ScriptedRuntime(scripted, max_item_bytes=64 * MIB).event(step()).start()).wait_until_done()
    malformed = [frame for frame in event.frames if frame.get("malformed")]
    assert len(malformed) == 1
    assert event.types == ["created", "stream", "stream", "stream", "done"]


async def test_long_and_short_items_keep_their_order() -> None:
    finish = b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\n' % (b"y" * MIB)
    scripted = streams(ROLE, content("a"), *in_reads(b"data: %b\n\n" % long_json_of(MIB), content("b"), finish), DONE)
    event = await (await ScriptedRuntime(scripted, max_item_bytes=64 * MIB).event(step()).start()).wait_until_done()
    assert [len(text) for text in event.texts] == [1, MIB, 1, MIB]
    assert event.types[-1] == "done"


async def test_a_long_item_that_reports_an_error_fails_the_step() -> None:
    error = b'data: {"error":{"message":"too busy","type":"overloaded_error","detail":"%b"}}\n\n' % (b"y" * (MIB // 2))
    scripted = streams(*in_reads(error))
    event = await (
        await ScriptedRuntime(scripted, streams(content("a"), FINISH, DONE), max_item_bytes=64 * MIB)
        .event([step(), step("groq")])
        .start()
    ).wait_until_done()
    assert [attempt.get("code") for attempt in event.metadata["attempts"]] == [9017, None]


async def cancelled_in_the_middle(scripted: ScriptedResponse) -> EventHarness:
    event = await ScriptedRuntime(scripted, max_item_bytes=64 * MIB).event(step()).start(iterations=40)
    assert not event.is_done
    before = len(event.frames)
    event.runner.cancel(Cancelled("cancelled by the client"))
    await event.wait_until_done()
    assert len(event.frames) == before + 1
    return event


async def test_a_cancel_inside_a_long_item_ends_the_event() -> None:
    incomplete = b"data: " + long_json_of(8 * MIB)
    event = await cancelled_in_the_middle(streams(content("a"), *in_reads(incomplete), SILENCE))
    assert event.code == 9020
    assert event.texts == ["a"]


async def test_a_cancel_inside_a_long_read_sends_no_more_items() -> None:
    item = b"data: " + long_json_of(8 * MIB) + b"\n\n"
    event = await cancelled_in_the_middle(streams(content("a"), item, DONE))
    assert event.code == 9020
    assert event.texts == ["a"]
