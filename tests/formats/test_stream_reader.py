"""Interpretation of stream items: by dialect, for known traps, and for recorded streams if there are any."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from bridge.formats.decoders import Shape, decoder_for, sniff
from bridge.formats.item import Item, ItemKind
from bridge.formats.stream_reader import Mark, StreamReader, StreamState, Usage, Verdict

BOOKKEEPING, ANSWER, CLOSING, FAILED, HEARTBEAT = Mark

DONE = Item(b"[DONE]", ItemKind.DONE)
ARRAY_END = Item(b"]", ItemKind.DONE)


def item(
    data: str | bytes, event: str | None = None, *, kind: ItemKind = ItemKind.JSON, exception: bool = False
) -> Item:
    return Item(data if isinstance(data, bytes) else data.encode(), kind, event, exception=exception)


def text(data: str, event: str | None = None) -> Item:
    return item(data, event, kind=ItemKind.TEXT)


def typed(data: str) -> Item:
    """Return an item as Anthropic, Cohere and OpenAI Responses send it: the event repeats the type."""
    return item(data, data.split('"type":"')[1].split('"')[0])


def chat(delta: str, finish: str = "null", index: int = 0, rest: str = "") -> Item:
    choice = f'{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return item(f'{{"id":"c","object":"chat.completion.chunk","choices":[{choice}]{rest}}}')


def gemini(part: str, finish: str | None = None, rest: str = "") -> Item:
    reason = f',"finishReason":"{finish}"' if finish else ""
    return item(f'{{"candidates":[{{"content":{{"parts":[{part}],"role":"model"}}{reason},"index":0}}]{rest}}}')


def read(items: Iterable[Item]) -> tuple[StreamReader, list[Mark]]:
    reader = StreamReader()
    return reader, [reader.read(each) for each in items]


def verdict(
    reader: StreamReader, ending: StreamState = StreamState.END, *, known: bool = False, truncated: bool = False
) -> Verdict:
    return reader.verdict(ending, truncated=truncated, clean_end_is_complete=known)


CHAT = [
    (chat('{"role":"assistant","content":"","refusal":null}'), BOOKKEEPING),
    (chat('{"content":"Hello"}'), ANSWER),
    (chat('{"content":" there"}'), ANSWER),
    (chat("{}", '"stop"'), ANSWER),
    (
        item(
            '{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,'
            '"prompt_tokens_details":{"cached_tokens":4}}}'
        ),
        BOOKKEEPING,
    ),
    (DONE, CLOSING),
]
RESPONSES = [
    (typed('{"type":"response.created","response":{"status":"in_progress","error":null,"usage":null}}'), BOOKKEEPING),
    (typed('{"type":"response.queued","response":{}}'), BOOKKEEPING),
    (typed('{"type":"response.in_progress","response":{}}'), BOOKKEEPING),
    (typed('{"type":"response.output_item.added","item":{}}'), ANSWER),
    (typed('{"type":"response.output_text.delta","delta":"Hi"}'), ANSWER),
    (
        typed(
            '{"type":"response.completed","response":{"error":null,"usage":{"input_tokens":20,'
            '"input_tokens_details":{"cached_tokens":8},"output_tokens":19,"total_tokens":39,"cost":0.0000086}}}'
        ),
        CLOSING,
    ),
]
ANTHROPIC = [
    (
        typed(
            '{"type":"message_start","message":{"stop_reason":null,"usage":{"input_tokens":4,'
            '"cache_creation_input_tokens":100,"cache_read_input_tokens":1000,"output_tokens":1}}}'
        ),
        BOOKKEEPING,
    ),
    (typed('{"type":"ping"}'), HEARTBEAT),
    (typed('{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}'), ANSWER),
    (typed('{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'), ANSWER),
    (typed('{"type":"content_block_stop","index":0}'), ANSWER),
    (typed('{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":201}}'), ANSWER),
    (typed('{"type":"message_stop"}'), CLOSING),
]
GEMINI = [
    (item('{"usageMetadata":{"trafficType":"ON_DEMAND"},"modelVersion":"gemini"}'), BOOKKEEPING),
    (gemini('{"text":"A","thought":true}', rest=',"usageMetadata":{"promptTokenCount":15}'), ANSWER),
    (
        gemini(
            '{"text":"B"}',
            "STOP",
            ',"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":2,"totalTokenCount":304,'
            '"thoughtsTokenCount":291,"cachedContentTokenCount":7}',
        ),
        ANSWER,
    ),
]
COHERE_V1 = [
    (item('{"is_finished":false,"event_type":"stream-start","generation_id":"g"}'), BOOKKEEPING),
    (item('{"is_finished":false,"event_type":"text-generation","text":"Ar"}'), ANSWER),
    (
        item(
            '{"is_finished":true,"event_type":"stream-end","finish_reason":"COMPLETE","response":{"meta":{'
            '"billed_units":{"input_tokens":7,"output_tokens":115},"tokens":{"input_tokens":69,"output_tokens":116}}}}'
        ),
        CLOSING,
    ),
]
COHERE_V2 = [
    (typed('{"type":"message-start","delta":{"message":{"role":"assistant","content":[]}}}'), BOOKKEEPING),
    (typed('{"type":"content-start","index":0,"delta":{"message":{"content":{"text":""}}}}'), ANSWER),
    (typed('{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Ar"}}}}'), ANSWER),
    (
        typed(
            '{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":7.0},'
            '"tokens":{"input_tokens":69.0,"output_tokens":110.0},"cached_tokens":5}}}'
        ),
        CLOSING,
    ),
]
WORKERS_AI = [
    (item('{"response":"","p":"abc"}'), ANSWER),
    (item('{"response":"Hello","p":"a"}'), ANSWER),
    (item('{"response":"","usage":{"prompt_tokens":10,"completion_tokens":50,"total_tokens":60}}'), ANSWER),
    (DONE, CLOSING),
]
OLLAMA = [
    (item('{"model":"llama3","message":{"role":"assistant","content":"Why"},"done":false}'), ANSWER),
    (item('{"model":"llama3","response":"","done":true,"prompt_eval_count":17,"eval_count":50}'), CLOSING),
]
TGI = [
    (item('{"index":1,"token":{"id":1,"text":"a"},"generated_text":null,"details":null}'), ANSWER),
    (item('{"token":{"id":2,"text":"b"},"generated_text":"ab","details":{"generated_tokens":2}}'), ANSWER),
]
REPLICATE = [
    (text("Once upon", "output"), ANSWER),
    (item('{"a":1}', "output"), ANSWER),
    (item("{}", "done"), CLOSING),
]
CONVERSE = [
    (item('{"role":"assistant"}', "messageStart"), BOOKKEEPING),
    (item('{"contentBlockIndex":0,"delta":{"text":"The"}}', "contentBlockDelta"), ANSWER),
    (item('{"contentBlockIndex":0,"delta":{"text":" end"}}', "contentBlockDelta"), ANSWER),
    (item('{"stopReason":"end_turn"}', "messageStop"), CLOSING),
    (
        item(
            '{"usage":{"inputTokens":3,"outputTokens":6,"totalTokens":19,"cacheReadInputTokens":10}}',
            "metadata",
        ),
        ANSWER,
    ),
]
NOVA = [
    (item('{"messageStart":{"role":"assistant"}}', "chunk"), BOOKKEEPING),
    (item('{"contentBlockDelta":{"delta":{"text":"On"},"contentBlockIndex":0}}', "chunk"), ANSWER),
    (item('{"messageStop":{"stopReason":"end_turn"}}', "chunk"), CLOSING),
    (
        item(
            '{"metadata":{"usage":{"inputTokens":30,"outputTokens":55}},"amazon-bedrock-invocationMetrics":'
            '{"inputTokenCount":30,"outputTokenCount":55}}',
            "chunk",
        ),
        CLOSING,
    ),
]
TITAN = [
    (item('{"outputText":"a","index":0,"completionReason":null,"inputTextTokenCount":5}', "chunk"), ANSWER),
    (item('{"outputText":"b","completionReason":"FINISH","totalOutputTextTokenCount":32}', "chunk"), CLOSING),
]
LLAMA = [
    (
        item('{"generation":"a","prompt_token_count":5,"generation_token_count":1,"stop_reason":null}', "chunk"),
        ANSWER,
    ),
    (
        item('{"generation":"","prompt_token_count":null,"generation_token_count":2,"stop_reason":"stop"}', "chunk"),
        CLOSING,
    ),
]
MISTRAL_ON_BEDROCK = [
    (item('{"outputs":[{"text":"a","stop_reason":null}]}', "chunk"), ANSWER),
    (
        item(
            '{"outputs":[{"text":"","stop_reason":"stop"}],'
            '"amazon-bedrock-invocationMetrics":{"inputTokenCount":1,"outputTokenCount":2}}',
            "chunk",
        ),
        CLOSING,
    ),
]

WHOLE_STREAMS = [
    pytest.param(CHAT, "openai-chat", Usage(12, 5, 4, 17), id="openai-chat"),
    pytest.param(RESPONSES, "openai-responses", Usage(20, 19, 8, 39), id="openai-responses"),
    pytest.param(ANTHROPIC, "anthropic", Usage(1104, 201, 1000, 1305, 100), id="anthropic"),
    pytest.param(GEMINI, "gemini", Usage(11, 293, 7, 304), id="gemini"),
    pytest.param(COHERE_V1, "cohere-v1", Usage(69, 116, None, 185), id="cohere-v1"),
    pytest.param(COHERE_V2, "cohere-v2", Usage(69, 110, 5, 179), id="cohere-v2"),
    pytest.param(WORKERS_AI, "workers-ai", Usage(10, 50, None, 60), id="workers-ai"),
    pytest.param(OLLAMA, "ollama", Usage(17, 50, None, 67), id="ollama"),
    pytest.param(TGI, "tgi", Usage(None, 2, None, None), id="tgi"),
    pytest.param(REPLICATE, "replicate", None, id="replicate"),
    pytest.param(CONVERSE, "bedrock-converse", Usage(13, 6, 10, 19), id="converse"),
    pytest.param(NOVA, "bedrock-nova", Usage(30, 55, None, 85), id="nova"),
    pytest.param(TITAN, "bedrock-invoke", Usage(5, 32, None, 37), id="titan"),
    pytest.param(LLAMA, "bedrock-invoke", Usage(5, 2, None, 7), id="llama"),
    pytest.param(MISTRAL_ON_BEDROCK, "bedrock-invoke", Usage(1, 2, None, 3), id="mistral-on-bedrock"),
]


@pytest.mark.parametrize(("rows", "dialect", "usage"), WHOLE_STREAMS)
def test_every_item_of_a_dialect_has_its_mark(rows: list[tuple[Item, Mark]], dialect: str, usage: Usage | None) -> None:
    reader, marks = read(each for each, _ in rows)
    assert marks == [mark for _, mark in rows]
    assert (reader.dialect, reader.usage, reader.fault) == (dialect, usage, None)
    assert verdict(reader) is Verdict.COMPLETE


@pytest.mark.parametrize(("rows", "dialect", "usage"), WHOLE_STREAMS)
def test_a_stream_cut_in_its_first_answer_is_broken(
    rows: list[tuple[Item, Mark]], dialect: str, usage: Usage | None
) -> None:
    first = [mark for _, mark in rows].index(ANSWER)
    reader, _ = read(each for each, _ in rows[: first + 1])
    assert (reader.dialect, reader.finished, reader.closed) == (dialect, False, False)
    assert verdict(reader) is verdict(reader, StreamState.CUT) is verdict(reader, StreamState.SILENT) is Verdict.BROKEN
    assert verdict(reader, known=True) is Verdict.COMPLETE
    assert verdict(reader, StreamState.CUT, known=True) is verdict(reader, known=True, truncated=True) is Verdict.BROKEN


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(CHAT[:-2], id="openai"),
        pytest.param(ANTHROPIC[:-1], id="anthropic"),
        pytest.param(GEMINI, id="gemini"),
        pytest.param(WORKERS_AI[:-1], id="workers-ai"),
        pytest.param([(item('{"response":"","finish_reason":"stop"}'), ANSWER)], id="workers-ai reason"),
        pytest.param(TGI, id="tgi"),
    ],
)
def test_a_stream_is_complete_after_its_finish_mark(rows: list[tuple[Item, Mark]]) -> None:
    reader, _ = read(each for each, _ in rows)
    assert (reader.finished, reader.closed) == (True, False)
    assert verdict(reader) is verdict(reader, StreamState.SILENT) is Verdict.COMPLETE
    assert verdict(reader, StreamState.CUT) is verdict(reader, truncated=True) is Verdict.COMPLETE_CUT


@pytest.mark.parametrize("word", ["completed", "incomplete", "cancelled"])
def test_a_response_closes_in_three_ways(word: str) -> None:
    reader, marks = read(
        [typed('{"type":"response.output_text.delta","delta":"Hi"}'), typed(f'{{"type":"response.{word}"}}')]
    )
    assert marks == [ANSWER, CLOSING]
    assert verdict(reader, StreamState.CUT) is Verdict.COMPLETE


@pytest.mark.parametrize("ending", StreamState)
@pytest.mark.parametrize("truncated", [False, True])
def test_after_the_closing_mark_nothing_breaks_a_stream(ending: StreamState, truncated: bool) -> None:
    reader, _ = read([chat('{"content":"a"}'), DONE])
    assert verdict(reader, ending, truncated=truncated) is Verdict.COMPLETE


ANSWERS = [
    pytest.param(chat('{"reasoning_content":"hm"}'), id="openai reasoning"),
    pytest.param(chat('{"tool_calls":[{"index":0}]}'), id="openai tool call"),
    pytest.param(chat('{"role":"assistant","tool_calls":[]}'), id="openai empty list"),
    pytest.param(chat('{"refusal":"No."}'), id="openai refusal"),
    pytest.param(chat("{}", '"content_filter"'), id="openai filter"),
    pytest.param(item('{"choices":[{"text":"Once","index":0,"finish_reason":null}]}'), id="completions"),
    pytest.param(typed('{"type":"response.refusal.delta","delta":"No"}'), id="responses refusal"),
    pytest.param(item('{"promptFeedback":{"blockReason":"SAFETY"}}'), id="gemini blocked"),
    pytest.param(text("hello"), id="text"),
    pytest.param(item('["ping"]'), id="array"),
    pytest.param(item("{}"), id="empty object"),
    pytest.param(item(b"\xff\x00", kind=ItemKind.BYTES), id="audio"),
    pytest.param(item('{"type":"done"}', "done"), id="a done of no known dialect"),
    pytest.param(item('{"error":null,"type":"chunk"}'), id="error null"),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_other_items_are_answers(answer: Item) -> None:
    _, marks = read([answer])
    assert marks == [ANSWER]


@pytest.mark.parametrize(
    "bookkeeping",
    [
        pytest.param(chat('{"role":"assistant"}'), id="role"),
        pytest.param(chat('{"role":"assistant","content":null,"reasoning_content":""}'), id="nulls and empty strings"),
        pytest.param(chat("{}"), id="empty delta"),
        pytest.param(chat('{"content":""}', '""'), id="empty finish_reason"),
        pytest.param(item('{"choices":[],"prompt_filter_results":[]}'), id="azure filter results"),
        pytest.param(item('{"choices":[{"text":"","index":0,"finish_reason":null}]}'), id="completions"),
        pytest.param(item('{"candidates":[],"modelVersion":"g"}'), id="gemini without candidate"),
    ],
)
def test_bookkeeping_is_not_an_answer(bookkeeping: Item) -> None:
    _, marks = read([bookkeeping])
    assert marks == [BOOKKEEPING]


def test_a_ping_does_not_identify_the_dialect() -> None:
    reader, marks = read([item('{"type":"ping"}', "ping"), chat('{"content":"a"}'), DONE])
    assert (reader.dialect, marks) == ("openai-chat", [HEARTBEAT, ANSWER, CLOSING])


def test_a_stream_of_an_unknown_dialect_is_complete_after_a_clean_end() -> None:
    watsonx = item('{"results":[{"generated_text":"the","stop_reason":"not_finished"}]}', "message")
    reader, marks = read([watsonx, watsonx])
    assert (reader.dialect, reader.finished, marks) == (None, False, [ANSWER, ANSWER])
    assert verdict(reader) is Verdict.COMPLETE
    assert verdict(reader, StreamState.CUT) is verdict(reader, truncated=True) is Verdict.BROKEN


def test_a_clean_end_without_any_item_is_empty() -> None:
    reader = StreamReader()
    assert verdict(reader) is verdict(reader, known=True) is Verdict.EMPTY
    assert verdict(reader, StreamState.CUT) is verdict(reader, truncated=True) is Verdict.BROKEN


# Traps


def test_a_stream_is_finished_when_all_choices_are() -> None:
    reader, _ = read([chat('{"content":"a"}'), chat('{"content":"b"}', index=1), chat("{}", '"stop"')])
    assert (reader.finished, verdict(reader)) == (False, Verdict.BROKEN)
    reader.read(chat("{}", '"stop"', index=1))
    assert (reader.finished, verdict(reader)) == (True, Verdict.COMPLETE)


def test_a_late_second_choice_revokes_the_finish_mark() -> None:
    reader, _ = read([chat('{"content":"a"}'), chat("{}", '"stop"')])
    assert reader.finished
    reader.read(chat('{"content":"b"}', index=1))
    assert not reader.finished


def test_a_choice_that_continues_after_its_finish_reason_is_not_finished() -> None:
    reader, _ = read([chat('{"role":"assistant","content":""}', '"stop"'), chat('{"content":"a"}')])
    assert not reader.finished
    reader.read(chat('{"content":"b"}'))
    assert verdict(reader, StreamState.CUT) is Verdict.BROKEN


def test_annotations_do_not_revoke_the_finish_mark() -> None:
    late = item('{"choices":[{"index":0,"finish_reason":null,"content_filter_results":{},"delta":{}}]}')
    reader, _ = read([chat('{"content":"a"}'), chat("{}", '"stop"'), late, chat("{}", '"stop"')])
    assert (reader.finished, verdict(reader)) == (True, Verdict.COMPLETE)


def test_gemini_stop_in_the_first_chunk_is_revoked_by_more_chunks() -> None:
    reader, _ = read([gemini('{"text":""}', "STOP")])
    assert reader.finished
    reader.read(gemini('{"text":"more"}'))
    assert (reader.finished, verdict(reader)) == (False, Verdict.BROKEN)


def test_gemini_counts_do_not_revoke_the_finish_mark() -> None:
    reader, marks = read([gemini('{"text":"a"}', "STOP"), item('{"usageMetadata":{"promptTokenCount":1}}')])
    assert (reader.finished, marks) == (True, [ANSWER, BOOKKEEPING])


def test_a_blocked_gemini_prompt_is_a_complete_answer() -> None:
    reader, marks = read([item('{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{}}')])
    assert (marks, verdict(reader)) == ([ANSWER], Verdict.COMPLETE)


def test_the_end_of_the_array_closes_it() -> None:
    reader, marks = read([gemini('{"text":"a"}'), ARRAY_END])
    assert (marks[-1], reader.closed, verdict(reader, StreamState.CUT)) == (CLOSING, True, Verdict.COMPLETE)


def test_done_closes_every_dialect_and_unknown_ones() -> None:
    _, marks = read([*(each for each, _ in ANTHROPIC), DONE])
    assert marks[-2:] == [CLOSING, CLOSING]
    assert read([text("hi"), DONE])[0].closed


def test_anthropic_content_after_message_delta_revokes_the_finish_mark() -> None:
    start = typed('{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}')
    reader, _ = read([*(each for each, _ in ANTHROPIC[:-1]), start])
    assert (reader.finished, verdict(reader, StreamState.CUT)) == (False, Verdict.BROKEN)


def test_anthropic_inside_bedrock_is_anthropic() -> None:
    start = item('{"type":"message_start","message":{"usage":{"input_tokens":16,"output_tokens":1}}}', "chunk")
    stop = item(
        '{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":16,"outputTokenCount":21}}',
        "chunk",
    )
    reader, marks = read([start, stop])
    assert (reader.dialect, marks, reader.usage) == ("anthropic", [BOOKKEEPING, CLOSING], Usage(16, 21, None, 37))


def test_invocation_metrics_close_a_stream_of_any_dialect() -> None:
    last = chat('{"content":"b"}', rest=',"amazon-bedrock-invocationMetrics":{"inputTokenCount":1}')
    reader, marks = read([chat('{"content":"a"}'), chat('{"content":"a"}'), last])
    assert (marks[-1], reader.usage) == (CLOSING, Usage(1, None, None, None))


def test_a_workers_ai_stream_in_openai_shape_takes_the_counts_of_its_last_chunk() -> None:
    last = item('{"response":"","usage":{"prompt_tokens":57,"completion_tokens":28,"total_tokens":85}}')
    zero = ',"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}'
    reader, _ = read([chat('{"content":"a"}', rest=zero), chat("{}", '"stop"'), last, DONE])
    assert (reader.dialect, reader.usage) == ("openai-chat", Usage(57, 28, None, 85))


def test_repeated_usage_counts_once() -> None:
    reader, _ = read(
        chat('{"content":"a"}', rest=f',"usage":{{"prompt_tokens":9,"completion_tokens":{n},"cost":{n}e-3}}')
        for n in (1, 2, 3)
    )
    assert (reader.usage, reader.costs) == (Usage(9, 3, None, 12), {"cost": 0.003})


def test_groq_counts_are_in_a_separate_member() -> None:
    counts = ',"x_groq":{"id":"r","usage":{"prompt_tokens":283,"completion_tokens":43,"total_tokens":326}}'
    reader, _ = read([chat('{"content":"a"}'), chat("{}", '"tool_calls"', rest=counts)])
    assert reader.usage == Usage(283, 43, None, 326)


# Errors in a stream

COMMON_FAILURES = [
    pytest.param(item('{"error":{"message":"Boom","type":"server_error"}}'), 500, "Boom", id="openai"),
    pytest.param(item('{"error":"model crashed"}'), 500, "model crashed", id="ollama"),
    pytest.param(
        typed('{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}'), 503, "Busy", id="anthropic"
    ),
    pytest.param(
        typed('{"type":"error","code":"rate_limit_exceeded","message":"Slow down"}'), 429, "Slow down", id="responses"
    ),
    pytest.param(item('{"error":{"code":503,"message":"Full","status":"UNAVAILABLE"}}'), 503, "Full", id="gemini"),
    pytest.param(item('{"object":"error","message":"Bad","type":"invalid_request_error"}'), 400, "Bad", id="mistral"),
    pytest.param(item('{"error":"Too long","error_type":"validation"}'), 422, "Too long", id="tgi"),
    pytest.param(text("CUDA out of memory", "error"), 500, "CUDA out of memory", id="replicate"),
    pytest.param(item('{"detail":"nope"}', "error"), 500, "nope", id="event: error"),
    pytest.param(item("{broken", "error"), 500, "{broken", id="event: error, malformed"),
    pytest.param(
        item('{"message":"Too many"}', "throttlingException", exception=True), 429, "Too many", id="throttling"
    ),
    pytest.param(item('{"message":"Slow"}', "modelTimeoutException", exception=True), 408, "Slow", id="model timeout"),
    pytest.param(
        item("", "modelStreamErrorException", exception=True), 424, "modelStreamErrorException", id="bare exception"
    ),
]


@pytest.mark.parametrize(("failure", "status", "message"), COMMON_FAILURES)
@pytest.mark.parametrize("rows", [[], CHAT[:3], ANTHROPIC[:4], CONVERSE[:3], [(text("a"), ANSWER)]])
def test_an_item_that_reports_an_error_fails_a_stream_of_any_dialect(
    rows: list[tuple[Item, Mark]], failure: Item, status: int, message: str
) -> None:
    reader, marks = read([*(each for each, _ in rows), failure])
    assert marks[-1] is FAILED
    assert reader.fault is not None
    assert (reader.fault.status, reader.fault.message, reader.closed) == (status, message, False)


@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        pytest.param(
            chat('{"content":""}', '"error"', rest=',"error":{"code":502,"message":"Busy"}'),
            502,
            "Busy",
            id="openrouter",
        ),
        pytest.param(
            item('{"choices":[{"finish_reason":"error","error":{"code":429,"message":"Slow"}}]}'),
            429,
            "Slow",
            id="error in the choice",
        ),
        pytest.param(
            chat("{}", '"error"'),
            500,
            "The provider ended its answer with finish_reason error",
            id="finish_reason error",
        ),
        pytest.param(
            typed(
                '{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"S"}}}'
            ),
            500,
            "S",
            id="response.failed",
        ),
        pytest.param(typed('{"type":"response.failed"}'), 500, "response.failed", id="bare response.failed"),
        pytest.param(
            item('{"is_finished":true,"event_type":"stream-end","finish_reason":"ERROR"}'),
            500,
            "Cohere ended its answer with finish_reason ERROR",
            id="cohere v1",
        ),
    ],
)
def test_each_dialect_has_its_own_ways_to_fail(failure: Item, status: int, message: str) -> None:
    reader, marks = read([failure])
    assert marks == [FAILED]
    assert reader.fault is not None
    assert (reader.fault.status, reader.fault.message) == (status, message)
    assert (reader.finished, reader.closed) == (False, False)


def test_cohere_v2_fails_by_its_last_message() -> None:
    reader, marks = read(
        [COHERE_V2[1][0], typed('{"type":"message-end","delta":{"finish_reason":"ERROR","error":"Oh"}}')]
    )
    assert (marks, reader.fault and reader.fault.message) == ([ANSWER, FAILED], "Oh")


@pytest.mark.parametrize(
    "refusal",
    [
        item('{"is_finished":true,"event_type":"stream-end","finish_reason":"ERROR_TOXIC"}'),
        item('{"stopReason":"guardrail_intervened"}', "messageStop"),
    ],
)
def test_a_refusal_in_the_stream_is_a_complete_answer(refusal: Item) -> None:
    assert read([refusal])[1] == [CLOSING]


def test_an_error_after_the_closing_mark_is_ignored() -> None:
    reader, marks = read([text("a"), DONE, item('{"error":"late"}')])
    assert (marks, reader.fault, verdict(reader)) == ([ANSWER, CLOSING, ANSWER], None, Verdict.COMPLETE)


def test_the_first_error_is_kept() -> None:
    reader, _ = read([item('{"error":{"code":429,"message":"first"}}'), item('{"error":"second"}')])
    assert reader.fault is not None
    assert (reader.fault.status, reader.fault.message) == (429, "first")


# Broken items

WELL_FORMED = [
    pytest.param(rb'"\ud800"', id="lone surrogate"),
    pytest.param(rb'"\ud83d\u0041"', id="half a pair"),
    pytest.param(b"1237940039285380274899124223", id="90 bits"),
    pytest.param(b"1" * 5000, id="5,000 digits"),
    pytest.param(b"1e400", id="number out of range"),
    pytest.param('"\u2028 日本"'.encode(), id="not ASCII"),
    pytest.param(b"[" * 100 + b"]" * 100, id="nested"),
]
BROKEN = [
    pytest.param(b'"\xff"', id="no UTF-8"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
    pytest.param(rb'"\ud800' + b'\xff"', id="lone surrogate, no UTF-8"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(rb'["\ud800",-Infinity]', id="lone surrogate and Infinity"),
    pytest.param(b'"\x01"', id="control character"),
    pytest.param(b"tru", id="cut"),
    pytest.param(b"1}", id="trailing"),
    pytest.param(b"[" * 100_000 + b"]" * 100_000, id="too deep"),
]
QUICK = [pytest.param(CHAT[1][0], id="quick way"), pytest.param(text("a"), id="general way")]


def extended(part: bytes) -> bytes:
    return b'{"choices":[{"index":0,"delta":{"content":"a"}}],"more":' + part + b"}"


@pytest.mark.parametrize("before", QUICK)
@pytest.mark.parametrize("part", WELL_FORMED)
def test_unusual_json_stays_json(before: Item, part: bytes) -> None:
    odd = item(extended(part))
    reader, marks = read([before, odd])
    assert (marks[-1], odd.kind, reader.dialect) == (ANSWER, ItemKind.JSON, "openai-chat")


@pytest.mark.parametrize("before", QUICK)
@pytest.mark.parametrize("part", BROKEN)
def test_broken_json_is_a_malformed_answer(before: Item, part: bytes) -> None:
    broken = item(extended(part))
    _, marks = read([before, broken])
    assert (marks[-1], broken.kind) == (ANSWER, ItemKind.MALFORMED)


def test_a_malformed_item_answers_even_where_its_event_is_bookkeeping() -> None:
    broken = item("{", "messageStart")
    assert (read([broken])[1], broken.kind) == ([ANSWER], ItemKind.MALFORMED)


@pytest.mark.parametrize(("data", "kind"), [("é".encode(), ItemKind.TEXT), (b"\xe9", ItemKind.MALFORMED)])
def test_text_is_checked_to_be_utf_8(data: bytes, kind: ItemKind) -> None:
    plain = item(data, kind=ItemKind.TEXT)
    assert (read([plain])[1], plain.kind) == ([ANSWER], kind)


@pytest.mark.parametrize(
    "odd",
    [
        '{"choices":[{"index":null,"delta":null,"finish_reason":null}]}',
        '{"choices":[{"index":"0","delta":"a","finish_reason":{}}]}',
        '{"choices":[1]}',
        '{"choices":7,"usage":[]}',
        '{"candidates":{"a":1},"usageMetadata":3}',
        '{"type":5,"response":[],"message":1,"delta":2}',
    ],
)
@pytest.mark.parametrize("rows", [[], CHAT[:3], ANTHROPIC[:4], GEMINI[:2], COHERE_V2[:3], TITAN[:1]])
def test_json_of_unexpected_types_is_accepted(rows: list[tuple[Item, Mark]], odd: str) -> None:
    last = item(odd)
    reader, _ = read([*(each for each, _ in rows), last])
    assert (last.kind, reader.fault, reader.closed) == (ItemKind.JSON, None, False)


# Real streams

STREAMS = [
    # file prefix, dialect, usage
    ("anthropic__sdkfixture-basic", "anthropic", Usage(11, 6, None, 17)),
    ("anthropic__sdkfixture-fallback", "anthropic", Usage(25, 8, None, 33)),
    ("anthropic__sdkfixture-maxtokens", "anthropic", Usage(450, 124, 0, 574)),
    ("anthropic__sdkfixture-tool__", "anthropic", Usage(377, 65, 0, 442)),
    ("anthropic__sdkfixture-toolrefusal", "anthropic", Usage(28, 106, 0, 134)),
    ("anthropic__text", "anthropic", Usage(1169, 201, 0, 1370, cache_write_tokens=1165)),
    ("anthropic__thinking", "anthropic", Usage(42, 419, 0, 461)),
    ("anthropic__tools", "anthropic", Usage(567, 57, 0, 624)),
    ("azure-openai__chat-filter", "openai-chat", None),
    ("bedrock__converse-text", "bedrock-converse", Usage(13, 61, None, 74)),
    ("bedrock__converse-tool-claude", "bedrock-converse", Usage(236, 58, None, 294)),
    ("bedrock__guardrail", "bedrock-converse", Usage(17, 16, None, 33)),
    ("bedrock__invoke-claude", "anthropic", Usage(16, 21, None, 37)),
    ("bedrock__invoke-nova", "bedrock-nova", Usage(30, 55, 0, 85)),
    ("cohere__v1-streamjson", "cohere-v1", Usage(69, 116, None, 185)),
    ("cohere__v2-text", "cohere-v2", Usage(69, 110, None, 179)),
    ("cohere__v2-tool", "cohere-v2", Usage(968, 83, None, 1051)),
    ("deepseek__usage", "openai-chat", Usage(12, 89, 0, 101)),
    ("gemini__jsonarray-text", "gemini", Usage(11, 293, None, 304)),
    ("gemini__jsonarray-thoughtsig", "gemini", Usage(60, 48, None, 108)),
    ("gemini__jsonarray-tool", "gemini", Usage(32, 54, None, 86)),
    ("gemini__sse-interactions", None, Usage(11, 168, 0, 179)),
    ("gemini__sse-text", "gemini", Usage(13, 8, None, 21)),
    ("groq__tool", "openai-chat", Usage(283, 43, None, 326)),
    ("mistral__text", "openai-chat", Usage(11, 43, None, 54)),
    ("mistral__tool", "openai-chat", Usage(96, 23, None, 119)),
    ("ollama__chat", "ollama", Usage(17, 50, None, 67)),
    ("ollama__generate", "ollama", Usage(17, 71, None, 88)),
    ("openai-chat__text", "openai-chat", Usage(12, 5, 0, 17)),
    ("openai-chat__tools", "openai-chat", Usage(364, 40, 0, 404)),
    ("openai-responses__text-tools", "openai-responses", Usage(255, 16, 0, 271)),
    ("openrouter__responses-comment-reasoning", "openai-responses", Usage(20, 19, 0, 39)),
    ("openrouter__responses-comment-tool", "openai-responses", Usage(42, 12, 0, 54)),
    ("openrouter__responses-text", "openai-responses", Usage(17, 4, 0, 21)),
    ("replicate__id-comment", "replicate", None),
    ("together__text", "openai-chat", Usage(41, 15, 0, 56)),
    ("vllm-local__completions", "openai-chat", None),
    ("watsonx__id", None, None),
    ("writer__tool", "openai-chat", Usage(194, 22, None, 216)),
]
CONTENT_TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".bin": "application/vnd.amazon.eventstream",
    ".json": "application/json",
}


@pytest.fixture
def streams() -> Path:
    """Return the folder of recorded streams; skip the test if there is none."""
    return Path(os.environ["BRIDGE_STREAMS"])


def decoded(path: Path) -> tuple[list[Item], bool]:
    body = path.read_bytes()
    shape = sniff(CONTENT_TYPES[path.suffix], "/v1beta/models/gemini:streamGenerateContent", body, True)
    assert shape is not None
    assert shape is not Shape.SINGLE
    decoder = decoder_for(shape, 1 << 26)
    items = decoder.feed(body) + decoder.finish()
    return items, decoder.truncated


@pytest.mark.needs("streams")
def test_the_table_names_every_real_stream(streams: Path) -> None:
    names = sorted(path.name for path in streams.iterdir() if path.suffix in CONTENT_TYPES)
    assert [[name for name in names if name.startswith(row[0])] for row in STREAMS] == [[name] for name in names]


@pytest.mark.needs("streams")
@pytest.mark.parametrize(("prefix", "dialect", "usage"), STREAMS, ids=[row[0] for row in STREAMS])
def test_a_recorded_stream_is_complete_and_broken_without_its_end(
    streams: Path, prefix: str, dialect: str | None, usage: Usage | None
) -> None:
    (path,) = streams.glob(f"{prefix}*")
    items, truncated = decoded(path)
    reader, marks = read(items)
    assert (reader.dialect, reader.usage, reader.fault, truncated) == (dialect, usage, None, False)
    assert verdict(reader) is Verdict.COMPLETE
    assert all(each.kind is not ItemKind.MALFORMED for each in items)

    in_the_middle = (marks.index(ANSWER) + 1 + len(items)) // 2 if len(items) > 4 else 1
    cut, _ = read(items[:in_the_middle])
    assert verdict(cut) is (Verdict.COMPLETE if dialect is None else Verdict.BROKEN)
    assert verdict(cut, StreamState.CUT) is Verdict.BROKEN


def test_the_fast_check_sees_moonshots_counts_inside_the_choice() -> None:
    counts = '"usage":{"prompt_tokens":23,"completion_tokens":235,"total_tokens":258,"cached_tokens":7}'
    reader, _ = read(
        [
            chat('{"content":"hi"}'),
            chat('{"content":"ho"}'),
            item('{"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":null,' + counts + "}]}"),
        ]
    )
    assert reader.usage == Usage(23, 235, 7, 258)
