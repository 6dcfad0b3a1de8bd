"""What is assumed of an event's cost: before it is known, and when it never will be."""

from collections.abc import Hashable
from typing import Final

import msgspec

from bridge.formats.request_fields import read_json
from bridge.formats.usage import Usage

BYTES_PER_TOKEN: Final = 4
"""Of a request; English text, as providers' own rules of thumb have it."""
BYTES_PER_CHUNK: Final = 256
"""Of a stream in OpenAI's form, whose chunks are a token each: what is not seen chunk by chunk is counted by that."""
OUTPUT_TOKENS: Final = 1000
"""Of an answer whose length nobody bounded."""
MAX_OUTPUT_TOKENS: Final = 131_072
"""No answer is longer, whatever its request allows."""
MAX_INPUT_TOKENS: Final = 2_000_000
"""No model reads more."""
MAX_ANSWERS: Final = 128
"""OpenAI's bound of `n`."""
MAX_PARSED_BYTES: Final = 1 << 20
"""A longer request is not searched for its bound: the longest answer is expected of it."""
_NUMBER_CHARS: Final = 40
"""A longer number is read as far as this, and is larger than any bound."""
MAX_MODELS: Final = 4096
_SHARE: Final = 0.2
"""What the newest cost counts in the average."""


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
"""Members that ask for several answers."""
_INSIDE: Final = (
    "generationConfig",  # Gemini
    "generation_config",
    "inferenceConfig",  # Bedrock converse, Nova
    "textGenerationConfig",  # Titan
    "parameters",  # Hugging Face, Vertex AI, DashScope
    "options",  # Ollama
    "input",  # Replicate
)
"""Members that are objects in which these may stand."""
_NUMBERS: Final = frozenset(name.lower() for name in (*_BOUNDS, *_COUNTS))
"""Servers in Go take a member's name in any case."""

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def expected(body: bytes) -> Usage:
    """Of a call that is not made yet. Takes time as the body is long, up to `MAX_PARSED_BYTES`.

    `body` is without its content coding.
    """
    inputs = min(len(body) // BYTES_PER_TOKEN, MAX_INPUT_TOKENS)
    if len(body) > MAX_PARSED_BYTES:
        return Usage(inputs, MAX_OUTPUT_TOKENS)
    asked = _asked_for(body)
    # A request with several bounds gets the longest answer that one of them allows: providers read different ones.
    bounds = [number for name in _BOUNDS for number in asked.get(name.lower(), ())]
    answers = max((number for name in _COUNTS for number in asked.get(name.lower(), ())), default=1)
    most = min(max(bounds, default=OUTPUT_TOKENS), MAX_OUTPUT_TOKENS)
    return Usage(inputs, most * min(answers, MAX_ANSWERS))


def of_cut(told: Usage | None, request_bytes: int, answer_bytes: int, chunks: int) -> Usage:
    """Of a stream that was cut: what it told, and in place of what it did not, what was seen of it.

    What is told early counts few output tokens, so the greater number is taken.
    """
    seen = max(chunks, answer_bytes // BYTES_PER_CHUNK)
    if told is None:
        return Usage(request_bytes // BYTES_PER_TOKEN, seen)
    inputs = request_bytes // BYTES_PER_TOKEN if told.input_tokens is None else told.input_tokens
    return Usage(inputs, max(told.output_tokens or 0, seen), told.cached_tokens)


def _asked_for(body: bytes) -> dict[str, list[int]]:
    """The numbers that a request names, at its top and in the objects where providers have them; all above 0."""
    top = _members(body)
    found: dict[str, list[int]] = {}
    for members in (top, *(_members(bytes(top[name.lower()])) for name in _INSIDE if name.lower() in top)):
        for name in _NUMBERS & members.keys():
            if (number := _number(members[name])) is not None:
                found.setdefault(name, []).append(number)
    return found


def _members(value: bytes) -> dict[str, msgspec.Raw]:
    """By their names in lower case."""
    return {name.lower(): member for name, member in (read_json(value, _members_of) or {}).items()}


def _number(value: msgspec.Raw) -> int | None:
    """A number above 0, at most `MAX_OUTPUT_TOKENS`; also in a string, which lenient servers take for one."""
    try:
        number = float(bytes(value)[:_NUMBER_CHARS].strip(b'"'))
    except ValueError:
        return None
    return int(min(number, MAX_OUTPUT_TOKENS)) if number >= 1 else None


class Averages:
    """What events cost of late, in US dollars: a moving average by key, of the keys told last."""

    def __init__(self, most: int = MAX_MODELS) -> None:
        self._most = most
        self._usd: dict[Hashable, float] = {}

    def add(self, key: Hashable, usd: float) -> None:
        known = self._usd.pop(key, usd)
        self._usd[key] = known + _SHARE * (usd - known)
        if len(self._usd) > self._most:
            del self._usd[next(iter(self._usd))]

    def usd(self, key: Hashable) -> float | None:
        return self._usd.get(key)
