"""Decoding of one stream: held items and their release, the ends of raw runs, and errors."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BridgeError, ItemTooLarge
from bridge.formats.decoders import Shape, decoder_for
from bridge.formats.stream_reader import StreamReader, StreamState, Verdict
from bridge.protocol.frames import EventFrames
from bridge.relay.stream_decoder import MAX_HELD_BYTES, MAX_HELD_ITEMS, MAX_PINGS, StreamDecoder
from bridge.relay.stream_encoders import ItemEncoder, RawEncoder
from tests.support.decoding import cut_at

BOOKKEEPING = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
ANSWER = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
FINISH = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
FAULT = b'data: {"error":{"message":"overloaded","type":"overloaded_error"}}\n\n'
COMMENT = b": keep-alive\n\n"


def stream_of(shape: Shape = Shape.SSE, *, raw: bool = False) -> StreamDecoder:
    frames = EventFrames(b"1", compat=False)
    return StreamDecoder(
        decoder_for(shape, 1 << 21), StreamReader(), RawEncoder(frames) if raw else ItemEncoder(frames)
    )


def responses(frames: list[bytes]) -> list[Any]:
    return [json.loads(frame)["response"] for frame in frames]


def body_of(frames: list[bytes]) -> bytes:
    """Return the provider's body, joined from raw frames."""
    body = b""
    for frame in map(json.loads, frames):
        text = frame["response"]
        body += text.encode() if frame["encoding"] == "text" else base64.b64decode(text)
    return body


def finish(stream: StreamDecoder, ending: StreamState = StreamState.END) -> tuple[list[bytes], Verdict]:
    return stream.finish(ending, clean_end_is_complete=False)


# Held items.


@pytest.mark.parametrize("raw", [False, True])
def test_bookkeeping_is_held_back_until_it_is_released_in_order(raw: bool) -> None:
    stream = stream_of(raw=raw)
    assert stream.feed(BOOKKEEPING) == []
    assert (stream.answered, stream.is_holding, stream.chunks) == (False, True, 0)
    assert stream.feed(ANSWER) == []
    assert stream.answered
    held = stream.release()
    assert stream.chunks == len(held) == 2
    assert (stream.is_holding, stream.release()) == (False, [])
    after = stream.feed(FINISH)
    assert (len(after), stream.chunks) == (1, 3)


def test_everything_is_passed_on_immediately_after_release() -> None:
    stream = stream_of()
    assert stream.release() == []
    assert len(stream.feed(BOOKKEEPING)) == 1
    assert not stream.answered
    assert (stream.chunks, stream.is_holding) == (1, False)


def test_the_end_mark_counts_as_an_answer_and_makes_no_frame() -> None:
    stream = stream_of()
    assert stream.feed(BOOKKEEPING) == []
    assert not stream.answered
    assert stream.feed(DONE) == []
    assert (stream.answered, stream.reader.closed) == (True, True)
    assert len(stream.release()) == 1


@pytest.mark.parametrize("before", [b"", COMMENT, b"data:\n\n", b'event: ping\ndata: {"type":"ping"}\n\n'])
def test_the_end_mark_alone_does_not_count_as_an_answer(before: bytes) -> None:
    stream = stream_of()
    assert stream.feed(before + DONE) == []
    assert (stream.answered, stream.reader.closed) == (False, True)
    assert finish(stream)[1] is Verdict.EMPTY


@pytest.mark.parametrize("raw", [False, True])
def test_items_after_the_closing_mark_are_counted_and_are_in_raw_runs_only(raw: bool) -> None:
    stream = stream_of(raw=raw)
    stream.release()
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    before = len(stream.feed(ANSWER + FINISH + DONE))
    assert before == (1 if raw else 2)
    assert len(stream.feed(ANSWER + usage)) == raw
    assert stream.reader.usage is not None
    assert stream.is_over


HEARTBEATS = [
    b"data:\n\n",
    b"data: \n\n",
    b"data: : keepalive\n\n",
    b"event: heartbeat\ndata: {}\n\n",
    b"event: ping\ndata: \n\n",
    b'event: keepalive\ndata: {"type":"keepalive","sequence_number":1}\n\n',
    b'data: {"type":"keepalive"}\n\n',
    b'data: {"type": "ping"}\n\n',
]


@pytest.mark.parametrize("heartbeat", HEARTBEATS)
def test_a_heartbeat_is_dropped_before_the_answer_and_relayed_after_it(heartbeat: bytes) -> None:
    stream = stream_of()
    assert stream.feed(heartbeat * 200) == []
    assert (stream.answered, stream.is_holding) == (False, False)
    assert stream.feed(BOOKKEEPING + heartbeat * 200) == []
    assert (stream.answered, stream.is_holding) == (False, True)
    stream.feed(ANSWER)
    assert len(stream.release()) == 2
    assert len(stream.feed(heartbeat)) == 1


@pytest.mark.parametrize("heartbeat", HEARTBEATS)
def test_raw_frames_drop_no_heartbeat(heartbeat: bytes) -> None:
    stream = stream_of(raw=True)
    assert stream.feed(heartbeat * 3 + ANSWER) == []
    assert body_of(stream.release()) == heartbeat * 3 + ANSWER


MESSAGE_START = b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
TEXT = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


@pytest.mark.parametrize("body", [PING + MESSAGE_START + PING, MESSAGE_START + PING, PING + PING + MESSAGE_START])
def test_an_anthropic_ping_keeps_its_position(body: bytes) -> None:
    stream = stream_of()
    assert stream.feed(body) == stream.feed(TEXT) == []
    types = [response["type"] for response in responses(stream.release())]
    assert types == [
        part.split(b"\n")[0].removeprefix(b"event: ").decode() for part in (body + TEXT).split(b"\n\n")[:-1]
    ]


def test_held_pings_are_bounded() -> None:
    stream = stream_of()
    assert stream.feed(MESSAGE_START + PING * 1000) == []
    long = b'data: {"type":"ping","pad":"%s"}\n\n' % (b"x" * 1000)
    assert stream.feed(long + TEXT) == []
    assert len(stream.release()) == 2 + MAX_PINGS


def test_comments_are_neither_answers_nor_held_items() -> None:
    for raw in (False, True):
        stream = stream_of(raw=raw)
        assert stream.feed(COMMENT * 200) == []
        assert (stream.answered, stream.is_holding) == (False, False)
        assert stream.release() == ([] if not raw else [EventFrames(b"1", compat=False).run(COMMENT * 200)])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("in_one_read", [False, True])
def test_held_items_are_bounded(raw: bool, in_one_read: bool) -> None:
    stream = stream_of(raw=raw)
    for body in [BOOKKEEPING * MAX_HELD_ITEMS] if in_one_read else [BOOKKEEPING] * MAX_HELD_ITEMS:
        assert stream.feed(body) == []
    assert not stream.answered
    assert stream.feed(BOOKKEEPING) == []
    assert stream.answered
    assert len(stream.release()) == (2 if raw and in_one_read else MAX_HELD_ITEMS + 1)


@pytest.mark.parametrize("raw", [False, True])
def test_held_bytes_are_bounded(raw: bool) -> None:
    pad = b"x" * (MAX_HELD_BYTES // 2 - 200)
    start = b'data: {"type":"message_start","pad":"%b"}\n\n' % pad
    stream = stream_of(raw=raw)
    assert stream.feed(start) == stream.feed(start) == []
    assert not stream.answered
    assert stream.feed(start) == []
    assert stream.answered


# Errors.


def test_no_item_is_passed_on_after_an_error_item() -> None:
    stream = stream_of()
    stream.release()
    frames = stream.feed(ANSWER + FAULT + ANSWER + DONE)
    assert (stream.failed, stream.answered, len(frames)) == (True, True, 2)
    assert responses(frames)[-1]["error"]["message"] == "overloaded"
    assert stream.reader.fault is not None
    assert stream.reader.fault.status == 503
    assert not stream.reader.closed


def test_an_error_item_alone_does_not_count_as_an_answer_and_stays_held() -> None:
    stream = stream_of()
    assert stream.feed(BOOKKEEPING + FAULT) == []
    assert (stream.failed, stream.answered) == (True, False)


def test_an_error_item_completed_by_the_end_of_the_body_is_passed_on() -> None:
    stream = stream_of()
    stream.release()
    assert stream.feed(FAULT.rstrip()) == []
    frames, _ = finish(stream)
    assert (stream.failed, len(frames)) == (True, 1)


def test_a_too_large_item_raises() -> None:
    with pytest.raises(ItemTooLarge):
        stream_of().feed(b"data: " + b"x" * (1 << 22))


# The end.


@pytest.mark.parametrize(
    ("body", "ending", "verdict"),
    [
        (ANSWER + FINISH + DONE, StreamState.END, Verdict.COMPLETE),
        (ANSWER + FINISH + DONE, StreamState.CUT, Verdict.COMPLETE),
        (ANSWER + FINISH, StreamState.END, Verdict.COMPLETE),
        (ANSWER + FINISH, StreamState.SILENT, Verdict.COMPLETE),
        (ANSWER + FINISH, StreamState.CUT, Verdict.COMPLETE_CUT),
        (ANSWER + FINISH + b"data: {", StreamState.END, Verdict.COMPLETE_CUT),
        (ANSWER + FINISH + DONE.strip(), StreamState.END, Verdict.COMPLETE),
        (ANSWER, StreamState.END, Verdict.BROKEN),
        (ANSWER, StreamState.CUT, Verdict.BROKEN),
        (ANSWER + b"data: {", StreamState.END, Verdict.BROKEN),
        (COMMENT, StreamState.END, Verdict.EMPTY),
        (b"", StreamState.END, Verdict.EMPTY),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_the_verdict_depends_on_how_the_body_ended(
    body: bytes, ending: StreamState, verdict: Verdict, raw: bool
) -> None:
    stream = stream_of(raw=raw)
    stream.feed(body)
    assert finish(stream, ending)[1] is verdict


def test_a_clean_end_without_a_mark_is_complete_if_the_provider_sends_none() -> None:
    stream = stream_of()
    stream.feed(ANSWER)
    assert stream.finish(StreamState.END, clean_end_is_complete=True)[1] is Verdict.COMPLETE


# Raw runs.


def test_a_raw_run_ends_at_an_item_end() -> None:
    stream = stream_of(raw=True)
    stream.release()
    assert stream.feed(ANSWER[:20]) == []
    frames = stream.feed(ANSWER[20:] + COMMENT + FINISH + DONE[:5])
    assert body_of(frames) == ANSWER + COMMENT + FINISH
    assert len(frames) == 1
    assert body_of(stream.feed(DONE[5:])) == DONE
    assert finish(stream) == ([], Verdict.COMPLETE)
    assert stream.chunks == 2


def test_the_bytes_of_an_incomplete_item_are_in_the_last_run() -> None:
    stream = stream_of(raw=True)
    stream.release()
    assert stream.feed(b"data: {") == []
    frames, verdict = finish(stream)
    assert (body_of(frames), verdict) == (b"data: {", Verdict.BROKEN)


def test_only_a_raw_run_that_is_not_utf_8_is_sent_as_base64() -> None:
    stream = stream_of(raw=True)
    stream.release()
    frames = [*stream.feed(ANSWER), *stream.feed(b"data: \xff\n\n"), *stream.feed(DONE)]
    assert [json.loads(frame)["encoding"] for frame in frames] == ["text", "base64", "text"]
    assert body_of(frames) == ANSWER + b"data: \xff\n\n" + DONE


PIECES = st.lists(st.sampled_from([BOOKKEEPING, ANSWER, FINISH, DONE, COMMENT, b"data: \xc3\xa9\r\n\r\n", b"\n", b"x"]))


def closing_mark_end(body: bytes) -> int | None:
    """Return the number of bytes up to the end of the closing mark's item; None if the body has none."""
    stream = stream_of(raw=True)
    for length in range(1, len(body) + 1):
        stream.feed(body[length - 1 : length])
        if stream.reader.closed:
            return length
    return None


@given(body=PIECES.map(b"".join), data=st.data(), released=st.booleans())
def test_joined_raw_runs_are_the_body_up_to_an_item_end_from_the_closing_mark_on(
    body: bytes, data: st.DataObject, released: bool
) -> None:
    stream = stream_of(raw=True)
    frames = [*stream.release()] if released else []
    end = closing_mark_end(body)
    for piece in cut_at(body, data.draw(st.lists(st.integers(0, len(body))))):
        frames += stream.feed(piece)
    last, _ = finish(stream)
    frames += [*last, *stream.release()]
    sent = body_of(frames)
    assert body.startswith(sent)
    assert len(sent) >= (len(body) if end is None else end)
    assert stream.chunks == len(frames)


def test_no_raw_run_contains_a_partial_item_after_the_closing_mark() -> None:
    stream = stream_of(raw=True)
    stream.release()
    frames = [*stream.feed(ANSWER + FINISH + DONE + ANSWER[:10]), *stream.feed(ANSWER[10:20])]
    last, verdict = finish(stream)
    assert (body_of([*frames, *last]), verdict) == (ANSWER + FINISH + DONE, Verdict.COMPLETE)


@given(body=PIECES.map(b"".join), data=st.data())
def test_frames_do_not_depend_on_how_the_body_is_split_into_reads(body: bytes, data: st.DataObject) -> None:
    stream, split_stream = stream_of(), stream_of()
    expected = [*stream.release(), *stream.feed(body), *finish(stream)[0]]
    frames = split_stream.release()
    for piece in cut_at(body, data.draw(st.lists(st.integers(0, len(body))))):
        frames += split_stream.feed(piece)
    assert [*frames, *finish(split_stream)[0]] == expected


@given(
    body=st.binary(), shape=st.sampled_from([shape for shape in Shape if shape is not Shape.SINGLE]), raw=st.booleans()
)
def test_any_input_raises_only_the_bridges_errors(body: bytes, shape: Shape, raw: bool) -> None:
    stream = stream_of(shape, raw=raw)
    try:
        frames = [*stream.feed(body), *finish(stream)[0], *stream.release()]
    except BridgeError:
        return
    for frame in frames:
        json.loads(frame.decode())
