"""Estimates of an event's tokens and cost."""

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
    cut_stream_usage,
    expected,
)

BOUNDS = {
    "OpenAI chat": ({"max_tokens": 50}, 50),
    "OpenAI chat, current name": ({"max_completion_tokens": 60}, 60),
    "Responses": ({"max_output_tokens": 70}, 70),
    "the greatest of several": ({"max_tokens": 1, "max_completion_tokens": 40_000, "max_output_tokens": 9}, 40_000),
    "Gemini": ({"generationConfig": {"maxOutputTokens": 80}}, 80),
    "Bedrock converse": ({"inferenceConfig": {"maxTokens": 90}}, 90),
    "Titan": ({"textGenerationConfig": {"maxTokenCount": 100}}, 100),
    "Llama on Bedrock": ({"max_gen_len": 110}, 110),
    "TGI": ({"parameters": {"max_new_tokens": 120}}, 120),
    "Ollama": ({"options": {"num_predict": 130}}, 130),
    "Replicate": ({"input": {"max_tokens": 140}}, 140),
    "the greatest, at any level": ({"max_tokens": 1, "parameters": {"max_new_tokens": 40_000}}, 40_000),
    "several answers": ({"max_tokens": 50, "n": 4}, 200),
    "several answers of Gemini": ({"generationConfig": {"maxOutputTokens": 50, "candidateCount": 3}}, 150),
    "more answers than allowed": ({"max_tokens": 50, "n": 10**9}, 50 * MAX_ANSWERS),
    "a number in a string, which lenient servers take": ({"max_tokens": "50000"}, 50_000),
    "names in any case, which servers in Go take": ({"Options": {"NUM_PREDICT": 50_000}}, 50_000),
    "a float": ({"max_tokens": 5e4}, 50_000),
    "none": ({"model": "gpt"}, OUTPUT_TOKENS),
    "null": ({"max_tokens": None}, OUTPUT_TOKENS),
    "unlimited, in llama.cpp": ({"max_tokens": -1}, OUTPUT_TOKENS),
    "more than any model answers": ({"max_tokens": 10**30}, MAX_OUTPUT_TOKENS),
    "no number": ({"max_tokens": "many"}, OUTPUT_TOKENS),
    "no object": ([1], OUTPUT_TOKENS),
}


@pytest.mark.parametrize(("body", "max_tokens"), BOUNDS.values(), ids=BOUNDS)
def test_the_expected_output_is_the_requests_limit(body: object, max_tokens: int):
    try:
        sent = orjson.dumps(body)
    except TypeError:  # orjson does not encode integers of this size
        sent = b'{"max_tokens":1000000000000000000000000000000}'
    assert expected(sent).output_tokens == max_tokens


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'{"max_tokens":"\xff"}', b"not JSON"])
def test_an_unreadable_body_has_the_default_estimate(body: bytes):
    assert expected(body) == Usage(len(body) // 4, OUTPUT_TOKENS)


@pytest.mark.parametrize(
    "body",
    [b'{"a":NaN,"max_tokens":50000}', b'\xef\xbb\xbf{"max_tokens":50000}', '{"max_tokens":50000}'.encode("utf-16")],
    ids=["beside NaN", "behind a byte order mark", "in UTF-16"],
)
def test_a_limit_is_parsed_as_tolerant_providers_do(body: bytes):
    assert expected(body).output_tokens == 50_000


def test_the_limit_of_a_long_request_is_found():
    body = b'{"text":"' + b"x" * 400_000 + b'","max_tokens":50000}'
    assert expected(body) == Usage(len(body) // 4, 50_000)


def test_a_request_too_long_to_parse_has_the_largest_estimate():
    body = b'{"max_tokens":5,"text":"' + b"x" * MAX_PARSED_BYTES + b'"}'
    assert expected(body) == Usage(len(body) // 4, MAX_OUTPUT_TOKENS)


def test_expected_input_tokens_are_capped():
    assert expected(b"x" * 9_000_000).input_tokens == MAX_INPUT_TOKENS


CUTS = {
    "no usage": (None, Usage(25, 12)),
    "only input tokens": (Usage(input_tokens=30), Usage(30, 12)),
    "input tokens and the first output tokens": (Usage(30, 1), Usage(30, 12)),
    "more output tokens than chunks": (Usage(30, 90), Usage(30, 90)),
    "cached tokens": (Usage(30, 1, cached_tokens=20), Usage(30, 12, cached_tokens=20)),
}


@pytest.mark.parametrize(("reported", "usage"), CUTS.values(), ids=CUTS)
def test_unreported_usage_of_a_cut_stream_is_estimated_from_its_chunks(reported: Usage | None, usage: Usage):
    assert cut_stream_usage(reported, request_bytes=100, answer_bytes=300, chunks=12) == usage


def test_output_of_few_long_chunks_is_estimated_from_bytes():
    assert cut_stream_usage(None, request_bytes=100, answer_bytes=2560, chunks=1) == Usage(25, 10)


def test_an_average_starts_at_the_first_cost_and_follows_new_costs():
    averages = Averages()
    assert averages.usd("model") is None
    averages.add("model", 1.0)
    assert averages.usd("model") == 1.0
    averages.add("model", 2.0)
    assert averages.usd("model") == pytest.approx(1.2)
    for _ in range(100):
        averages.add("model", 3.0)
    assert averages.usd("model") == pytest.approx(3.0)


def test_averages_are_kept_for_the_most_recent_models():
    averages = Averages(max_keys=2)
    for name in ("a", "b", "a", "c"):
        averages.add(name, 1.0)
    assert [averages.usd(name) for name in "abc"] == [1.0, None, 1.0]
