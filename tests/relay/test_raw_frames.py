"""`frames: raw` sends the provider's body unchanged, in runs that end at item ends."""

import asyncio
import base64
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.aws_eventstream import event as aws_message
from tests.support.clock import ClockLoop
from tests.support.event_harness import (
    COMPLETE,
    DONE,
    FINISH,
    OVERLOADED,
    ROLE,
    EventHarness,
    Frame,
    ScriptedRuntime,
    content,
    step,
)
from tests.support.event_harness import run as run_event
from tests.support.provider_script import RESET, SILENCE, Part, ScriptedResponse, answers, streams

RAW = step(frames="raw")
GEMINI = RAW | {"provider": "google-ai-studio", "endpoint": "v1beta/models/m:streamGenerateContent"}

AWS_CLOSED = aws_message("contentBlockDelta", b'{"delta":{"text":"caf\xc3\xa9"}}') + aws_message(
    "messageStop", b'{"stopReason":"end_turn"}'
)
AWS = AWS_CLOSED + aws_message("metadata", b'{"usage":{}}')
ARRAY_CLOSED = b'[{"candidates":[{"index":0,"finishReason":"STOP"}]}\r\n,\r\n{"usageMetadata":{}}]'
CRLF = b"\xef\xbb\xbf" + b"".join(COMPLETE).replace(b"\n", b"\r\n")
BODIES: dict[str, tuple[bytes, str, Frame]] = {
    "SSE": (b"".join((b": hello\n\n", *COMPLETE)), "text/event-stream", RAW),
    "SSE with CRLF and a BOM": (
        CRLF,
        "text/event-stream",
        RAW,
    ),
    "SSE without its last blank line": (b"".join(COMPLETE).rstrip(), "text/event-stream", RAW),
    "SSE with CR line ends": (b"data: caf\xc3\xa9\r\rdata: 2\r\r\n", "text/event-stream", RAW),
    "NDJSON": (b'{"a":1}\n\n{"a":"\xe2\x82\xac"}\n{"a":3}', "application/x-ndjson", RAW),
    "an array": (
        ARRAY_CLOSED + b"\n",
        "application/json",
        GEMINI,
    ),
    "an AWS event stream": (AWS, "application/vnd.amazon.eventstream", RAW),
    "audio": (bytes(range(256)) * 4, "audio/mpeg", RAW),
}


CLOSED_AT = {
    "SSE with CRLF and a BOM": {len(CRLF) - 1, len(CRLF)},
    "an array": {len(ARRAY_CLOSED), len(ARRAY_CLOSED) + 1},
    "an AWS event stream": {len(AWS_CLOSED), len(AWS)},
}
"""Ends of items from the closing mark on, as numbers of bytes, if bytes follow the closing mark."""


def check_runs(name: str, reads: Sequence[Part], sent: bytes) -> None:
    """Check that the reads were sent: all of them, or up to the end of an item from the closing mark on."""
    body = b"".join(read for read in reads if isinstance(read, bytes))
    assert body.startswith(sent)
    assert len(sent) == len(body) or len(sent) in CLOSED_AT.get(name, set())


async def test_usage_after_the_closing_mark_is_sent_and_an_incomplete_item_is_not() -> None:
    usage = aws_message("metadata", b'{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}')
    trailer = aws_message("other", b"{}")[:-1]
    for rest in ([usage], [trailer], [usage[:9], usage[9:] + trailer]):
        reads: list[Part] = [AWS_CLOSED, *rest]
        event = await run_event(RAW, ScriptedResponse(reads, content_type="application/vnd.amazon.eventstream"))
        assert event.types[-1] == "done"
        assert body_of(event) == AWS_CLOSED + (usage if rest[0] != trailer else b"")


def body_of(event: EventHarness) -> bytes:
    """Return the body: the joined runs, or the response of a buffered answer."""
    return b"".join(
        base64.b64decode(frame["response"]) if frame["encoding"] == "base64" else frame["response"].encode()
        for frame in event.frames
        if "response" in frame
    )


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
async def test_raw_runs_are_the_body_up_to_an_item_end_from_the_closing_mark_on(name: str, size: int) -> None:
    body, label, request_ = BODIES[name]
    reads: list[Part] = [body[at : at + size] for at in range(0, len(body), size)]
    event = await run_event(request_, ScriptedResponse(reads, content_type=label))
    assert (event.types[0], event.types[-1]) == ("created", "done")
    check_runs(name, reads, body_of(event))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(BODIES)), cut=st.booleans())
def test_raw_runs_are_the_body_if_items_are_held_or_the_body_is_cut(data: st.DataObject, name: str, cut: bool) -> None:
    body, label, request_ = BODIES[name]
    places = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=8)))
    reads: list[Part] = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    if cut:
        reads[-1:] = [RESET]

    async def scripted() -> None:
        event = await run_event([request_, step()], ScriptedResponse(reads, content_type=label), answers())
        if "stream" in event.types:
            check_runs(name, reads, body_of(event))
        else:
            assert cut, "held items are dropped, and the next step answers"
            assert event.metadata["step"] == "1"

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        runner.run(scripted())


async def test_a_raw_run_ends_at_an_item_end_and_is_sent_as_text() -> None:
    gate = asyncio.Event()
    first, rest = content("caf\u00e9")[:-5], content("caf\u00e9")[-5:]
    event = await ScriptedRuntime(streams(ROLE + first, gate, rest, SILENCE)).event(RAW).start()
    assert [frame["response"] for frame in event.frames[1:]] == [ROLE.decode()]
    await event.release(gate)
    assert [frame["response"] for frame in event.frames[1:]] == [ROLE.decode(), content("caf\u00e9").decode()]
    assert {frame["encoding"] for frame in event.frames[1:]} == {"text"}
    await event.cancel()


async def test_raw_frames_have_the_same_metadata_and_errors_as_items() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    event = await run_event([RAW, step("groq")], streams(content("a"), FINISH, usage, DONE))
    assert (event.metadata["chunks"], event.metadata["usage"]["totalTokens"]) == (4, 5)
    event = await run_event([RAW, step("groq")], streams(ROLE, RESET), streams(*COMPLETE))
    assert event.metadata["step"] == "1"
    event = await run_event(RAW, streams(content("a"), RESET))
    assert (event.code, body_of(event)) == (9016, content("a"))
    event = await run_event([RAW, step("groq")], streams(content("a") + OVERLOADED))
    assert (event.code, body_of(event)) == (9017, content("a") + OVERLOADED)


async def test_a_buffered_json_answer_is_the_same_in_raw_frames() -> None:
    event = await run_event(RAW, answers(b' {"ok": true}\n'))
    assert event.sink.raw[-1].endswith(b',"response": {"ok": true}\n}')


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (b"", "application/json"),
        (b"null", "text/plain"),
        (b'"quoted"', "text/plain"),
        (b"no JSON", "application/json"),
        (b"caf\xe9", "application/json"),
        (b"caf\xe9", "text/plain"),
        (b"caf\xc3\xa9", ""),
        (b"caf\xe9", "application/octet-stream"),
    ],
)
async def test_a_buffered_answer_of_other_content_names_its_encoding(body: bytes, label: str) -> None:
    event = await run_event(RAW, ScriptedResponse([body], content_type=label))
    assert body_of(event) == body


async def test_the_beginning_of_a_cut_item_is_sent() -> None:
    event = await run_event(RAW, streams(content("a"), b'data: {"cho', RESET))
    assert body_of(event) == content("a") + b'data: {"cho'
    assert event.code == 9016
