"""Token counts in the words of every provider, and the one reading of them."""

from typing import Any

import msgspec
import pytest

from bridge.wire.usage import Tally, Usage


def counted(*reports: dict[str, Any]) -> Usage | None:
    tally = Tally()
    for report in reports:
        tally.add(report, [()])
    return tally.usage()


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"latencyMs": 3}, None, id="no counts"),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}},
            Usage(10, 5, 8, 15),
            id="openai: cached within",
        ),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 8}, "total_tokens": 15},
            Usage(10, 5, 8, 15),
            id="responses: cached within",
        ),
        pytest.param(
            {"input_tokens": 2, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 4, "output_tokens": 5},
            Usage(14, 5, 8, 19, 4),
            id="anthropic: cached beside",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 4}},
            Usage(10, 5, None, 15, 4),
            id="openrouter: written within",
        ),
        pytest.param(
            {"inputTokens": 2, "cacheReadInputTokens": 8, "outputTokens": 5, "totalTokens": 15},
            Usage(10, 5, 8, 15),
            id="converse: cached beside",
        ),
        pytest.param(
            {
                "promptTokenCount": 10,
                "cachedContentTokenCount": 8,
                "toolUsePromptTokenCount": 1,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 3,
                "totalTokenCount": 16,
            },
            Usage(11, 5, 8, 16),
            id="gemini: thoughts beside",
        ),
        pytest.param({"prompt_tokens": 7, "total_tokens": 7}, Usage(7, None, None, 7), id="embeddings"),
        pytest.param({"prompt_tokens": 7.0}, Usage(7, None, None, None), id="floats"),
        pytest.param({"prompt_tokens": 7, "prompt_tokens_details": None}, Usage(7), id="details null"),
        pytest.param({"prompt_tokens": True, "completion_tokens": -1}, None, id="no counts at all"),
        pytest.param({"prompt_tokens": float("inf"), "completion_tokens": 1 << 90}, None, id="beyond counting"),
        pytest.param({"prompt_tokens": "7", "completion_tokens": [1]}, None, id="other types"),
    ],
)
def test_input_includes_what_was_cached_and_output_what_was_thought(
    report: dict[str, Any], usage: Usage | None
) -> None:
    assert counted(report) == usage


def test_later_counts_replace_earlier_ones_and_null_replaces_nothing() -> None:
    first = {"input_tokens": 25, "output_tokens": 1}
    assert counted(first, {"output_tokens": 9}, {"input_tokens": None, "output_tokens": 15}) == Usage(25, 15, None, 40)


def test_of_two_places_the_one_seen_later_wins() -> None:
    tally = Tally()
    tally.add(
        {"tokens": {"input_tokens": 69}, "billed": {"input_tokens": 7}}, [("billed",), ("tokens",), ("gone", "x")]
    )
    assert tally.usage() == Usage(69)


@pytest.mark.parametrize(
    ("cost", "dollars"),
    [
        (0.25, 0.25),
        (0, 0.0),
        ({"total_cost": 0.5, "input_tokens_cost": 0.1}, 0.5),
        ("1", None),
        (None, None),
        ({}, None),
    ],
)
def test_a_cost_is_taken_where_the_provider_reports_one(cost: object, dollars: float | None) -> None:
    tally = Tally()
    tally.add({"usage": {"cost": cost}}, [("usage",)])
    assert tally.cost() == dollars


def test_what_is_unknown_is_left_out_on_the_wire() -> None:
    assert msgspec.json.encode(Usage(1, None, 0)) == b'{"inputTokens":1,"cachedTokens":0}'
