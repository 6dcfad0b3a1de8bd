"""Convert every provider's token counts into one form.

In this form input includes the tokens read from or written to a cache, and output includes the model's thoughts. OpenAI
and most others count so. Anthropic and Bedrock count cached tokens separately, Gemini its thoughts: those are added
here (bridge/docs/providers.md, "Usage"; AWS, Bedrock user guide, "Prompt caching"). Other providers mix these names. If
there is a total it decides: input and output add up to it.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, Final, TypeAlias, TypeGuard

import msgspec

Value: TypeAlias = dict[str, Any]
"""A decoded JSON object."""

Path: TypeAlias = tuple[str | int, ...]
"""The members and list indices that lead to an object with token counts; () is the item itself."""

INVOCATION_METRICS = "amazon-bedrock-invocationMetrics"
"""The member that Bedrock adds to the last chunk of an invoke stream, in every dialect."""

_MAX_COUNT = 1 << 53
"""Larger numbers are not counts."""


class Usage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Token counts of first answer; None is unknown. Input includes cached tokens, output includes thoughts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Input tokens that were read from a cache."""
    total_tokens: int | None = None
    cache_write_tokens: int | None = None
    """Input tokens that were written to a cache. Zero is None, here and in the fields below."""
    input_audio_tokens: int | None = None
    """Input tokens that were audio, cached or not; the next two fields likewise."""
    output_audio_tokens: int | None = None
    cached_audio_tokens: int | None = None


_INPUT, _OUTPUT, _TOTAL, _CACHED, _WRITTEN = "input", "output", "total", "cached", "written"
_AUDIO = _AUDIO_IN, _AUDIO_OUT, _AUDIO_CACHED = "input audio", "output audio", "cached audio"
_SEPARATE_INPUT = ("cache_read", "cache_write", "tool_input")
_SEPARATE_OUTPUT = ("thoughts",)
_CACHE_READ, _CACHE_WRITE, _TOOL_INPUT = _SEPARATE_INPUT
(_THOUGHTS,) = _SEPARATE_OUTPUT
_REASONING = "reasoning"
_SHAPE = "shape"
"""Marks an input that includes its cached tokens, by OpenAI's names; the count has no meaning."""
_SOMETIMES_SEPARATE: Final = (_CACHE_READ, _CACHE_WRITE, _TOOL_INPUT, _THOUGHTS, _REASONING)
"""Counts that some providers include in input or output, and others do not."""

_ROLES = {
    "prompt_tokens": _INPUT,  # OpenAI chat and its followers
    "completion_tokens": _OUTPUT,
    "total_tokens": _TOTAL,
    "cached_tokens": _CACHED,  # Together, Cohere v2
    "prompt_cache_hit_tokens": _CACHED,  # DeepSeek
    "input_tokens": _INPUT,  # Responses, Anthropic, Cohere
    "output_tokens": _OUTPUT,
    "cache_read_input_tokens": _CACHE_READ,  # Anthropic
    "cache_creation_input_tokens": _CACHE_WRITE,
    "promptTokenCount": _INPUT,  # Gemini
    "candidatesTokenCount": _OUTPUT,
    "responseTokenCount": _OUTPUT,  # Gemini Live
    "totalTokenCount": _TOTAL,
    "cachedContentTokenCount": _CACHED,
    "toolUsePromptTokenCount": _TOOL_INPUT,
    "thoughtsTokenCount": _THOUGHTS,
    "total_input_tokens": _INPUT,  # Gemini interactions
    "total_output_tokens": _OUTPUT,
    "total_cached_tokens": _CACHED,
    "total_thought_tokens": _THOUGHTS,
    "inputTokens": _INPUT,  # Bedrock converse, Nova
    "outputTokens": _OUTPUT,
    "totalTokens": _TOTAL,
    "cacheReadInputTokens": _CACHE_READ,
    "cacheReadInputTokenCount": _CACHE_READ,
    "cacheWriteInputTokens": _CACHE_WRITE,
    "cacheWriteInputTokenCount": _CACHE_WRITE,
    "inputTokenCount": _INPUT,  # Bedrock invoke
    "outputTokenCount": _OUTPUT,
    "inputTextTokenCount": _INPUT,  # Titan
    "totalOutputTextTokenCount": _OUTPUT,
    "prompt_token_count": _INPUT,  # Llama on Bedrock
    "generation_token_count": _OUTPUT,
    "prompt_eval_count": _INPUT,  # Ollama
    "eval_count": _OUTPUT,
    "generated_tokens": _OUTPUT,  # TGI
    "input_token_count": _INPUT,  # Replicate
    "output_token_count": _OUTPUT,
}
_INPUT_DETAILS: tuple[tuple[Path, str], ...] = (
    (("cached_tokens",), _CACHED),
    (("cache_write_tokens",), _WRITTEN),  # OpenAI, OpenRouter
    (("audio_tokens",), _AUDIO_IN),
    (("cached_tokens_details", "audio_tokens"), _AUDIO_CACHED),  # OpenAI Realtime
)
_OUTPUT_DETAILS: tuple[tuple[Path, str], ...] = (
    (("audio_tokens",), _AUDIO_OUT),
    (("reasoning_tokens",), _REASONING),  # part of the output at OpenAI, separate at xAI
)
_DETAILS = {
    "prompt_tokens_details": _INPUT_DETAILS,  # OpenAI chat and its followers
    "completion_tokens_details": _OUTPUT_DETAILS,
    "input_tokens_details": _INPUT_DETAILS,  # Responses
    "output_tokens_details": _OUTPUT_DETAILS,
    "input_token_details": _INPUT_DETAILS,  # OpenAI Realtime
    "output_token_details": _OUTPUT_DETAILS,
}
"""Members that are objects, with the counts inside."""
_MODALITIES = {
    "promptTokensDetails": _AUDIO_IN,  # Gemini
    "candidatesTokensDetails": _AUDIO_OUT,
    "responseTokensDetails": _AUDIO_OUT,  # Gemini Live
    "cacheTokensDetails": _AUDIO_CACHED,
}
"""Members that are lists, with a count for each modality."""
_DETAILED: Final = _DETAILS.keys() | _MODALITIES.keys()
COUNT_NAMES = frozenset(_ROLES)
"""Names by which an object with token counts is recognised."""
_INCLUDES_CACHED: Final = frozenset({"prompt_tokens", "prompt_tokens_details", "input_tokens_details"})
"""Members of OpenAI's shapes, which count cached tokens as input."""
_COST_NAMES: Final = ("cost", "cost_in_usd_ticks")
"""Members that report a cost; the provider registry defines their meaning."""

_Counts: TypeAlias = dict[str, int]
"""Counts by role."""


class UsageCounter:
    """Collect the counts of one answer.

    A later number replaces an earlier one, unless it is zero. Many providers repeat their counts in every chunk: adding
    them is cheap, and the result is computed on demand.
    """

    __slots__ = ("_costs", "_reported")

    def __init__(self) -> None:
        self._reported: dict[Path, _Counts] = {}
        self._costs: dict[str, Any] = {}

    def add(self, value: Value, paths: Iterable[Path]) -> None:
        """Add the counts in `value` at `paths`.

        If two paths count the same, the path that was first used later wins.
        """
        found: _Counts = {}
        for path in paths:
            reported = at(value, path)
            if isinstance(reported, dict):
                self._add_costs(reported)
                if counts := _counts_in(reported):
                    _merge(self._reported.setdefault(path, {}), counts)
                    found |= counts
        if _TOTAL not in found and (found.get(_INPUT) or found.get(_OUTPUT)):
            for counts in self._reported.values():
                counts.pop(_TOTAL, None)  # that total is out of date

    def usage(self) -> Usage | None:
        """Return the counts so far, None if there are none. The total is computed if the provider reports none."""
        counts: _Counts = {}
        for reported in self._reported.values():
            _merge(counts, reported)
        includes_cached = counts.pop(_SHAPE, None) is not None
        if not counts:
            return None
        inputs, outputs = _input_and_output(counts, includes_cached=includes_cached)
        total = counts.get(_TOTAL) or None
        if total is None and inputs is not None and outputs is not None:
            total = inputs + outputs
        read, written = _first_nonzero(counts, _CACHE_READ, _CACHED), _first_nonzero(counts, _CACHE_WRITE, _WRITTEN)
        return Usage(inputs, outputs, read, total, written or None, *(counts.get(role) or None for role in _AUDIO))

    def costs(self) -> dict[str, Any]:
        """Return the last members that report a cost, unchecked: see `bridge.policy.reported`."""
        return self._costs

    def _add_costs(self, reported: dict[str, Any]) -> None:
        for name in _COST_NAMES:
            cost = reported.get(name)
            if cost or (cost is not None and name not in self._costs):
                self._costs[name] = cost


def _counts_in(reported: dict[str, Any]) -> _Counts:
    counts: _Counts = {}
    for name, number in reported.items():
        if (role := _ROLES.get(name)) is not None:
            if not _is_count(number):
                continue
            count = int(number)
            if count or role not in counts:
                counts[role] = count
        elif name not in _DETAILED or not (found := dict(_detail_counts(name, number))):
            continue
        else:
            _merge(counts, found)
        if name in _INCLUDES_CACHED:
            counts[_SHAPE] = 1
    return counts


def _merge(counts: _Counts, later: _Counts) -> None:
    for role, count in later.items():
        if count or role not in counts:
            counts[role] = count


def _first_nonzero(counts: _Counts, first: str, second: str) -> int | None:
    return counts.get(first) or counts.get(second, counts.get(first))


# Input and output.


def _input_and_output(counts: _Counts, *, includes_cached: bool) -> tuple[int | None, int | None]:
    """Return input and output, which add up to the total if there is one."""
    usual = {_TOOL_INPUT, _THOUGHTS} if includes_cached else {*_SEPARATE_INPUT, *_SEPARATE_OUTPUT}
    inputs, outputs = _sums(counts, usual)
    total = counts.get(_TOTAL)
    if not total or (inputs or 0) + (outputs or 0) == total:
        return inputs, outputs
    for separate in _alternatives(counts):
        sides = _sums(counts, separate)
        if sum(side or 0 for side in sides) == total:
            return sides
    return _fit_to_total(inputs if inputs and inputs <= total else counts.get(_INPUT), outputs, total)


def _alternatives(counts: _Counts) -> Iterator[set[str]]:
    """Yield every set of counts that may be separate from input and output, the smallest first."""
    separate = [role for role in _SOMETIMES_SEPARATE if counts.get(role)]
    return (set(chosen) for size in range(len(separate) + 1) for chosen in combinations(separate, size))


def _sums(counts: _Counts, separate: set[str]) -> tuple[int | None, int | None]:
    return (
        _sum(counts, _INPUT, *(role for role in _SEPARATE_INPUT if role in separate)),
        _sum(counts, _OUTPUT, *(role for role in (*_SEPARATE_OUTPUT, _REASONING) if role in separate)),
    )


def _fit_to_total(inputs: int | None, outputs: int | None, total: int) -> tuple[int, int | None]:
    """Fit the counts to the total, which no combination explains. Input is the most reliable; the rest is output."""
    if inputs is None:
        return max(total - (outputs or 0), 0), None if outputs is None else min(outputs, total)
    return min(inputs, total), max(total - inputs, 0)


def _detail_counts(name: str, details: Any) -> Iterator[tuple[str, int]]:
    for path, role in _DETAILS.get(name, ()):
        if _is_count(count := at(details, path)):
            yield role, int(count)
    if name in _MODALITIES and isinstance(details, list):
        audio = (at(entry, ("tokenCount",)) for entry in details if at(entry, ("modality",)) == "AUDIO")
        yield _MODALITIES[name], sum(int(count) for count in audio if _is_count(count))


def _sum(counts: dict[str, int], *roles: str) -> int | None:
    known = [counts[role] for role in roles if role in counts]
    return sum(known) if known else None


def at(value: Any, path: Path) -> Any:
    """Return the value at `path` in `value`; None if a member or an element is missing."""
    for name in path:
        if isinstance(name, int):
            value = value[name] if isinstance(value, list) and name < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_count(number: Any) -> TypeGuard[int | float]:
    """Return True for a number in the valid range; Cohere counts in floats."""
    return type(number) in (int, float) and 0 <= number < _MAX_COUNT
