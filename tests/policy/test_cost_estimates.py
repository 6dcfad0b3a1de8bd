"""What is assumed of an event's cost."""

import orjson
import pytest

from bridge.formats.usage import Usage
from bridge.policy.cost_estimates import (
    MAX_ANSWERS,
    MAX_INPUT_TOKENS,
    MAX_OUTPUT_TOKENS,
    MAX_PARSED_BYTES,
    OUTPUT_TOKENS,
    Averages,
    expected,
    of_cut,
)

BOUNDS = {
    "OpenAI chat": ({"max_tokens": 50}, 50),
    "OpenAI chat of late": ({"max_completion_tokens": 60}, 60),
    "Responses": ({"max_output_tokens": 70}, 70),
    "the greatest of several": ({"max_tokens": 1, "max_completion_tokens": 40_000, "max_output_tokens": 9}, 40_000),
    "Gemini": ({"generationConfig": {"maxOutputTokens": 80}}, 80),
    "Bedrock converse": ({"inferenceConfig": {"maxTokens": 90}}, 90),
    "Titan": ({"textGenerationConfig": {"maxTokenCount": 100}}, 100),
    "Llama on Bedrock": ({"max_gen_len": 110}, 110),
    "TGI": ({"parameters": {"max_new_tokens": 120}}, 120),
    "Ollama": ({"options": {"num_predict": 130}}, 130),
    "Replicate": ({"input": {"max_tokens": 140}}, 140),
    "the greatest, wherever it stands": ({"max_tokens": 1, "parameters": {"max_new_tokens": 40_000}}, 40_000),
    "several answers": ({"max_tokens": 50, "n": 4}, 200),
    "several answers of Gemini": ({"generationConfig": {"maxOutputTokens": 50, "candidateCount": 3}}, 150),
    "as many answers as there may be": ({"max_tokens": 50, "n": 10**9}, 50 * MAX_ANSWERS),
    "a number in a string, which lenient servers take": ({"max_tokens": "50000"}, 50_000),
    "names in any case, which servers in Go take": ({"Options": {"NUM_PREDICT": 50_000}}, 50_000),
    "a float": ({"max_tokens": 5e4}, 50_000),
    "none": ({"model": "gpt"}, OUTPUT_TOKENS),
    "null": ({"max_tokens": None}, OUTPUT_TOKENS),
    "unlimited, as llama.cpp says it": ({"max_tokens": -1}, OUTPUT_TOKENS),
    "more than anybody answers": ({"max_tokens": 10**30}, MAX_OUTPUT_TOKENS),
    "no number": ({"max_tokens": "many"}, OUTPUT_TOKENS),
    "no object": ([1], OUTPUT_TOKENS),
}


@pytest.mark.parametrize(("body", "most"), BOUNDS.values(), ids=BOUNDS)
def test_an_answer_is_expected_to_be_as_long_as_its_request_allows(body: object, most: int):
    try:
        sent = orjson.dumps(body)
    except TypeError:  # orjson writes no such integers
        sent = b'{"max_tokens":1000000000000000000000000000000}'
    assert expected(sent).output_tokens == most


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'{"max_tokens":"\xff"}', b"not JSON"])
def test_whatever_the_body_is(body: bytes):
    assert expected(body) == Usage(len(body) // 4, OUTPUT_TOKENS)


@pytest.mark.parametrize(
    "body",
    [b'{"a":NaN,"max_tokens":50000}', b'\xef\xbb\xbf{"max_tokens":50000}', '{"max_tokens":50000}'.encode("utf-16")],
    ids=["beside NaN", "behind a byte order mark", "in UTF-16"],
)
def test_a_bound_is_read_as_tolerant_providers_read_it(body: bytes):
    assert expected(body).output_tokens == 50_000


def test_a_long_request_does_not_hide_its_bound():
    body = b'{"text":"' + b"x" * 400_000 + b'","max_tokens":50000}'
    assert expected(body) == Usage(len(body) // 4, 50_000)


def test_of_a_request_too_long_to_be_searched_the_longest_answer_is_expected():
    body = b'{"max_tokens":5,"text":"' + b"x" * MAX_PARSED_BYTES + b'"}'
    assert expected(body) == Usage(len(body) // 4, MAX_OUTPUT_TOKENS)


def test_no_request_is_longer_than_a_model_reads():
    assert expected(b"x" * 9_000_000).input_tokens == MAX_INPUT_TOKENS


CUTS = {
    "nothing was told": (None, Usage(25, 12)),
    "the input alone": (Usage(input_tokens=30), Usage(30, 12)),
    "the input, and few tokens of output at the beginning": (Usage(30, 1), Usage(30, 12)),
    "more output than was seen": (Usage(30, 90), Usage(30, 90)),
    "cached tokens": (Usage(30, 1, cached_tokens=20), Usage(30, 12, cached_tokens=20)),
}


@pytest.mark.parametrize(("told", "usage"), CUTS.values(), ids=CUTS)
def test_of_a_stream_that_was_cut_what_was_seen_stands_for_what_was_not_told(told: Usage | None, usage: Usage):
    assert of_cut(told, request_bytes=100, answer_bytes=300, chunks=12) == usage


def test_what_was_not_seen_chunk_by_chunk_is_counted_by_its_bytes():
    assert of_cut(None, request_bytes=100, answer_bytes=2560, chunks=1) == Usage(25, 10)


def test_an_average_begins_with_the_first_cost_and_follows_the_newest():
    averages = Averages()
    assert averages.usd("model") is None
    averages.add("model", 1.0)
    assert averages.usd("model") == 1.0
    averages.add("model", 2.0)
    assert averages.usd("model") == pytest.approx(1.2)
    for _ in range(100):
        averages.add("model", 3.0)
    assert averages.usd("model") == pytest.approx(3.0)


def test_it_is_kept_for_the_models_told_last():
    averages = Averages(most=2)
    for name in ("a", "b", "a", "c"):
        averages.add(name, 1.0)
    assert [averages.usd(name) for name in "abc"] == [1.0, None, 1.0]
