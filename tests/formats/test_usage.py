"""Token counts of every provider, converted into one form."""

from typing import Any

import msgspec
import pytest

from bridge.formats.usage import Usage, UsageCounter


def counted(*reports: dict[str, Any]) -> Usage | None:
    counters = UsageCounter()
    for report in reports:
        counters.add(report, [()])
    return counters.usage()


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
def test_input_includes_cached_tokens_and_output_includes_thoughts(report: dict[str, Any], usage: Usage | None) -> None:
    assert counted(report) == usage


XAI = {
    "prompt_tokens": 10120,
    "completion_tokens": 1499,
    "total_tokens": 14428,
    "prompt_tokens_details": {"cached_tokens": 128},
    "completion_tokens_details": {"reasoning_tokens": 2809},
}
READ_TWICE = {"prompt_tokens_details": {"cached_tokens": 2455}, "cache_read_input_tokens": 2455}


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param(XAI, Usage(10120, 4308, 128, 14428), id="xai: thoughts beside the output"),
        pytest.param(
            {"input_tokens": 32, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 111}}
            | {"total_tokens": 152},
            Usage(32, 120, None, 152),
            id="xai responses: thoughts beside the output",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}
            | {"total_tokens": 60},
            Usage(10, 50, None, 60),
            id="openai: thoughts within the output",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 75},
            Usage(10, 65, None, 75),
            id="gemini in openai's words: thoughts in the total alone",
        ),
        pytest.param(
            {"prompt_tokens": 2459, "completion_tokens": 23, "total_tokens": 2482, **READ_TWICE},
            Usage(2459, 23, 2455, 2482),
            id="relay: read from the cache, reported under two names",
        ),
        pytest.param(
            {"prompt_tokens": 2459, "completion_tokens": 23, **READ_TWICE},
            Usage(2459, 23, 2455, 2482),
            id="relay: the same without a total",
        ),
        pytest.param(
            {"prompt_tokens": 12307, "completion_tokens": 550, "total_tokens": 12857}
            | {"prompt_tokens_details": {"cached_tokens": 0}}
            | {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 12304},
            Usage(12307, 550, 0, 12857, 12304),
            id="relay: written to the cache",
        ),
        pytest.param(
            {"input_tokens": 2459, "output_tokens": 23, "total_tokens": 2482, "cache_read_input_tokens": 2455},
            Usage(2459, 23, 2455, 2482),
            id="responses with anthropic's counts: the total decides",
        ),
        pytest.param(
            {"input_tokens": 4, "output_tokens": 23, "total_tokens": 2482, "cache_read_input_tokens": 2455},
            Usage(2459, 23, 2455, 2482),
            id="anthropic with a total: cached beside",
        ),
        pytest.param(
            {"input_tokens": 4, "output_tokens": 23, "total_tokens": 2500, "cache_read_input_tokens": 2455},
            Usage(2459, 41, 2455, 2500),
            id="what no reading explains is output",
        ),
        pytest.param({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 12}, Usage(10, 2, None, 12)),
        pytest.param({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 7}, Usage(7, 0, None, 7)),
        pytest.param({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, Usage(10, 5, None, 15)),
        pytest.param({"total_tokens": 20}, Usage(20, None, None, 20), id="embeddings: a total alone"),
        pytest.param({"prompt_tokens": 25, "input_tokens": 0, "completion_tokens": 5}, Usage(25, 5, None, 30)),
    ],
)
def test_input_and_output_add_up_to_the_reported_total(report: dict[str, Any], usage: Usage) -> None:
    assert counted(report) == usage


@pytest.mark.parametrize(
    ("reports", "usage"),
    [
        pytest.param(
            [{"input_tokens": 25, "output_tokens": 1}, {"input_tokens": 0, "output_tokens": 15}],
            Usage(25, 15, None, 40),
            id="anthropic: input 0 in the delta",
        ),
        pytest.param(
            [
                {"input_tokens": 3, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 20},
                {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
                | {"output_tokens": 15},
            ],
            Usage(1023, 15, 1000, 1038, 20),
            id="anthropic: all of the input 0 in the delta",
        ),
        pytest.param(
            [XAI, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}],
            Usage(10120, 4308, 128, 14428),
            id="the last chunk is all zeros",
        ),
        pytest.param(
            [
                XAI,
                {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}},
            ],
            Usage(10120, 4308, 128, 14428),
            id="zeros in the details",
        ),
        pytest.param([{"input_tokens": 0}, {"input_tokens": 25}], Usage(25), id="a number replaces a zero"),
    ],
)
def test_a_later_zero_never_replaces_an_earlier_number(reports: list[dict[str, Any]], usage: Usage) -> None:
    assert counted(*reports) == usage


def test_the_total_of_an_earlier_report_does_not_bind_a_later_one() -> None:
    first = {"input_tokens": 25, "output_tokens": 1, "total_tokens": 26}
    assert counted(first, {"output_tokens": 15}) == Usage(25, 15, None, 40)


def test_zeros_in_one_place_do_not_replace_numbers_in_another() -> None:
    counters = UsageCounter()
    paths = [("message", "usage"), ("usage",)]
    counters.add({"message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}, paths)
    counters.add({"usage": {"input_tokens": 0, "output_tokens": 15}}, paths)
    assert counters.usage() == Usage(25, 15, None, 40)


def test_counts_are_found_in_an_element_of_a_list() -> None:
    counters = UsageCounter()
    counters.add({"choices": [{"usage": {"prompt_tokens": 23, "completion_tokens": 235}}]}, [("choices", 0, "usage")])
    counters.add({"choices": []}, [("choices", 0, "usage")])
    assert counters.usage() == Usage(23, 235, None, 258)


def test_later_counts_replace_earlier_ones_and_null_replaces_nothing() -> None:
    first = {"input_tokens": 25, "output_tokens": 1}
    assert counted(first, {"output_tokens": 9}, {"input_tokens": None, "output_tokens": 15}) == Usage(25, 15, None, 40)


def test_the_path_that_was_first_used_later_wins() -> None:
    counters = UsageCounter()
    counters.add(
        {"tokens": {"input_tokens": 69}, "billed": {"input_tokens": 7}}, [("billed",), ("tokens",), ("gone", "x")]
    )
    assert counters.usage() == Usage(69)


def test_the_last_cost_members_are_kept() -> None:
    counters = UsageCounter()
    for usage in ({"cost": 0.25}, {"cost": {"total_cost": 0.5}, "cost_in_usd_ticks": 7}, {"cost": None, "price": 1}):
        counters.add({"usage": usage}, [("usage",)])
    assert counters.costs() == {"cost": {"total_cost": 0.5}, "cost_in_usd_ticks": 7}


def test_a_later_zero_does_not_replace_a_cost() -> None:
    counters = UsageCounter()
    counters.add({"usage": {"cost_in_usd_ticks": 162_631_000}}, [("usage",)])
    counters.add({"usage": {"cost": 0, "cost_in_usd_ticks": 0}}, [("usage",)])
    assert counters.costs() == {"cost": 0, "cost_in_usd_ticks": 162_631_000}


def test_unknown_counts_are_omitted_on_the_wire() -> None:
    assert msgspec.json.encode(Usage(1, None, 0)) == b'{"inputTokens":1,"cachedTokens":0}'
