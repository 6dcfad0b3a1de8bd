"""What an answer cost: every provider's words for its token counts, brought to one reading.

The reading: input includes the tokens that came from a cache or went into one, output includes the model's thoughts.
OpenAI and most others count so. Anthropic and Bedrock count cached tokens beside the input, Gemini counts thoughts
beside the output: those are added up here (PROVIDERS.md 1.3 and 4; AWS, Bedrock user guide, "Prompt caching").
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeGuard

import msgspec

Value: TypeAlias = dict[str, Any]
"""A JSON object, taken apart."""

Path: TypeAlias = tuple[str, ...]
"""The members that lead to an object with token counts; () is the item itself."""

INVOCATION_METRICS = "amazon-bedrock-invocationMetrics"
"""The member that Bedrock adds to the last chunk of an invoke stream, whatever the model's own dialect."""

_MOST = 1 << 53
"""More than this nobody counts or pays."""


class Usage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Token counts of one answer; None is unknown. Input includes cached tokens, output includes thoughts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Those of the input that were read from a cache."""
    total_tokens: int | None = None
    cache_write_tokens: int | None = None
    """Those of the input that were written to a cache; None, too, where none were, as in what follows."""
    input_audio_tokens: int | None = None
    """Those of the input that were sound, from a cache or not; the next two likewise."""
    output_audio_tokens: int | None = None
    cached_audio_tokens: int | None = None


_INPUT, _OUTPUT, _TOTAL, _CACHED, _WRITTEN = "input", "output", "total", "cached", "written"
_AUDIO = _AUDIO_IN, _AUDIO_OUT, _AUDIO_CACHED = "input audio", "output audio", "cached audio"
_BESIDE_INPUT = ("cache_read", "cache_write", "tool_input")
_BESIDE_OUTPUT = ("thoughts",)
_CACHE_READ, _CACHE_WRITE, _TOOL_INPUT = _BESIDE_INPUT
(_THOUGHTS,) = _BESIDE_OUTPUT

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
_OF_INPUT: tuple[tuple[Path, str], ...] = (
    (("cached_tokens",), _CACHED),
    (("cache_write_tokens",), _WRITTEN),  # OpenAI, OpenRouter
    (("audio_tokens",), _AUDIO_IN),
    (("cached_tokens_details", "audio_tokens"), _AUDIO_CACHED),  # OpenAI Realtime
)
_OF_OUTPUT: tuple[tuple[Path, str], ...] = ((("audio_tokens",), _AUDIO_OUT),)
_DETAILS = {
    "prompt_tokens_details": _OF_INPUT,  # OpenAI chat and its followers
    "completion_tokens_details": _OF_OUTPUT,
    "input_tokens_details": _OF_INPUT,  # Responses
    "output_tokens_details": _OF_OUTPUT,
    "input_token_details": _OF_INPUT,  # OpenAI Realtime
    "output_token_details": _OF_OUTPUT,
}
"""Members that are objects, and the counts inside."""
_MODALITIES = {
    "promptTokensDetails": _AUDIO_IN,  # Gemini
    "candidatesTokensDetails": _AUDIO_OUT,
    "responseTokensDetails": _AUDIO_OUT,  # Gemini Live
    "cacheTokensDetails": _AUDIO_CACHED,
}
"""Members that are lists, with a count for each modality."""
COUNT_NAMES = frozenset(_ROLES)
"""What an object with token counts is known by."""
_KEPT = COUNT_NAMES | _DETAILS.keys() | _MODALITIES.keys() | {"cost"}


class Tally:
    """The counts of one answer while they come in.

    A later number replaces an earlier one. Many providers repeat their counts in every chunk: taking them in is cheap,
    they are read when asked for.
    """

    __slots__ = ("_reported",)

    def __init__(self) -> None:
        self._reported: dict[Path, dict[str, Any]] = {}

    def add(self, value: Value, paths: Iterable[Path]) -> None:
        """Take in what `value` holds at `paths`; where two paths count the same, the one first seen later wins."""
        for path in paths:
            counts = at(value, path)
            if isinstance(counts, dict):
                known = {name: count for name, count in counts.items() if name in _KEPT and count is not None}
                if known:
                    self._reported.setdefault(path, {}).update(known)

    def usage(self) -> Usage | None:
        """The counts so far, None if there were none. The total is summed up when the provider gave none."""
        counts = self._counts()
        if not counts:
            return None
        inputs = _sum(counts, _INPUT, *_BESIDE_INPUT)
        outputs = _sum(counts, _OUTPUT, *_BESIDE_OUTPUT)
        total = counts.get(_TOTAL)
        if total is None and inputs is not None and outputs is not None:
            total = inputs + outputs
        read, written = counts.get(_CACHE_READ, counts.get(_CACHED)), counts.get(_CACHE_WRITE, counts.get(_WRITTEN))
        return Usage(inputs, outputs, read, total, written or None, *(counts.get(role) or None for role in _AUDIO))

    def cost(self) -> float | None:
        """US dollars, as the provider itself reported them: OpenRouter as a number, Perplexity as an object."""
        costs = [reported["cost"] for reported in self._reported.values() if "cost" in reported]
        cost = costs[-1] if costs else None
        if isinstance(cost, dict):
            cost = cost.get("total_cost")
        return float(cost) if _is_count(cost) else None

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for reported in self._reported.values():
            for name, number in reported.items():
                if name in _ROLES:
                    if _is_count(number):
                        counts[_ROLES[name]] = int(number)
                else:
                    counts.update(_inside(name, number))
        return counts


def _inside(name: str, details: Any) -> Iterator[tuple[str, int]]:
    for path, role in _DETAILS.get(name, ()):
        if _is_count(count := at(details, path)):
            yield role, int(count)
    if name in _MODALITIES and isinstance(details, list):
        heard = (at(each, ("tokenCount",)) for each in details if at(each, ("modality",)) == "AUDIO")
        yield _MODALITIES[name], sum(int(count) for count in heard if _is_count(count))


def _sum(counts: dict[str, int], *roles: str) -> int | None:
    known = [counts[role] for role in roles if role in counts]
    return sum(known) if known else None


def at(value: Any, path: Path) -> Any:
    """What stands at `path` in `value`; None where a member is missing or its parent is no object."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _is_count(number: Any) -> TypeGuard[int | float]:
    """Whether it is a number, and one that can be meant; Cohere counts in floats."""
    return type(number) in (int, float) and 0 <= number < _MOST
