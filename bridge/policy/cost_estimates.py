"""Estimate an event's tokens before the call, and for streams without complete usage. Pure."""

from collections.abc import Hashable
from typing import Final

import msgspec

from bridge.formats.request_fields import read_json
from bridge.formats.usage import Usage

BYTES_PER_TOKEN: Final = 4
"""Bytes per token of a request: a rule of thumb of providers for English text."""
BYTES_PER_CHUNK: Final = 256
"""Bytes per token of a stream: the size of an OpenAI chunk, which holds one token."""
OUTPUT_TOKENS: Final = 1000
"""Assumed for an answer without a length limit."""
MAX_OUTPUT_TOKENS: Final = 131_072
"""Upper bound for an answer, whatever its request allows."""
MAX_INPUT_TOKENS: Final = 2_000_000
"""Upper bound for the input of a model."""
MAX_ANSWERS: Final = 128
"""OpenAI's bound of `n`."""
MAX_PARSED_BYTES: Final = 1 << 20
"""Longer requests are not parsed: the longest answer is assumed."""
_NUMBER_CHARS: Final = 40
"""Longer numbers are cut here; they exceed every bound anyway."""
MAX_MODELS: Final = 4096
_SHARE: Final = 0.2
"""Weight of the newest cost in the average."""


_BOUNDS: Final = (
    "max_tokens",  # OpenAI chat and most others
    "max_completion_tokens",
    "max_output_tokens",  # Responses
    "maxOutputTokens",  # Gemini
    "maxTokens",  # Bedrock converse, AI21
    "max_new_tokens",  # TGI, Replicate
    "max_tokens_to_sample",  # Anthropic's completions
    "max_gen_len",  # Llama on Bedrock
    "maxTokenCount",  # Titan
    "num_predict",  # Ollama
    "n_predict",  # llama.cpp
    "max_length",  # Replicate
)
"""Members that bound an answer's length in tokens."""
_COUNTS: Final = ("n", "best_of", "candidateCount", "num_return_sequences", "num_generations")
"""Members that request several answers."""
_INSIDE: Final = (
    "generationConfig",  # Gemini
    "generation_config",
    "inferenceConfig",  # Bedrock converse, Nova
    "textGenerationConfig",  # Titan
    "parameters",  # Hugging Face, Vertex AI, DashScope
    "options",  # Ollama
    "input",  # Replicate
)
"""Members that are objects which may contain the above."""
_NUMBERS: Final = frozenset(name.lower() for name in (*_BOUNDS, *_COUNTS))
"""In lower case: servers in Go accept names in any case."""

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def expected(body: bytes) -> Usage:
    """Return the expected usage of a call before it is made. `body` is without its content coding.

    The time is linear in the length of the body, up to `MAX_PARSED_BYTES`.
    """
    inputs = min(len(body) // BYTES_PER_TOKEN, MAX_INPUT_TOKENS)
    if len(body) > MAX_PARSED_BYTES:
        return Usage(inputs, MAX_OUTPUT_TOKENS)
    requested = _requested_numbers(body)
    # A request with several bounds gets the longest answer that one of them allows: providers read different ones.
    bounds = [number for name in _BOUNDS for number in requested.get(name.lower(), ())]
    answers = max((number for name in _COUNTS for number in requested.get(name.lower(), ())), default=1)
    output_tokens = min(max(bounds, default=OUTPUT_TOKENS), MAX_OUTPUT_TOKENS)
    return Usage(inputs, output_tokens * min(answers, MAX_ANSWERS))


def cut_stream_usage(reported: Usage | None, request_bytes: int, answer_bytes: int, chunks: int) -> Usage:
    """Return the usage of a stream that was cut: the reported counts, and estimates for the missing ones.

    Early reports contain few output tokens, so the greater of reported and estimated is used.
    """
    received = max(chunks, answer_bytes // BYTES_PER_CHUNK)
    if reported is None:
        return Usage(request_bytes // BYTES_PER_TOKEN, received)
    inputs = request_bytes // BYTES_PER_TOKEN if reported.input_tokens is None else reported.input_tokens
    return Usage(inputs, max(reported.output_tokens or 0, received), reported.cached_tokens)


def _requested_numbers(body: bytes) -> dict[str, list[int]]:
    """Return the positive numbers of a request by name, from its top level and from the objects of `_INSIDE`."""
    top = _members(body)
    found: dict[str, list[int]] = {}
    for members in (top, *(_members(bytes(top[name.lower()])) for name in _INSIDE if name.lower() in top)):
        for name in _NUMBERS & members.keys():
            if (number := _number(members[name])) is not None:
                found.setdefault(name, []).append(number)
    return found


def _members(value: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of an object by name in lower case."""
    return {name.lower(): member for name, member in (read_json(value, _members_of) or {}).items()}


def _number(value: msgspec.Raw) -> int | None:
    """Return a positive number, at most `MAX_OUTPUT_TOKENS`, also from a string, which lenient servers accept."""
    try:
        number = float(bytes(value)[:_NUMBER_CHARS].strip(b'"'))
    except ValueError:
        return None
    return int(min(number, MAX_OUTPUT_TOKENS)) if number >= 1 else None


class Averages:
    """Moving averages of recent costs in US dollars, for the most recently used keys."""

    def __init__(self, max_keys: int = MAX_MODELS) -> None:
        self._max_keys = max_keys
        self._usd: dict[Hashable, float] = {}

    def add(self, key: Hashable, usd: float) -> None:
        known = self._usd.pop(key, usd)
        self._usd[key] = known + _SHARE * (usd - known)
        if len(self._usd) > self._max_keys:
            del self._usd[next(iter(self._usd))]

    def usd(self, key: Hashable) -> float | None:
        return self._usd.get(key)
