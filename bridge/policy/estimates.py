"""What is assumed of an event's cost: before it is known, and when it never will be."""

from collections.abc import Hashable
from typing import Final

import msgspec

from bridge.wire.usage import Usage

BYTES_PER_TOKEN: Final = 4
"""Of a request; English text, as providers' own rules of thumb have it."""
BYTES_PER_CHUNK: Final = 256
"""Of a stream in OpenAI's form, whose chunks are a token each: what is not seen chunk by chunk is counted by that."""
OUTPUT_TOKENS: Final = 1000
"""Of an answer whose length nobody bounded."""
MAX_OUTPUT_TOKENS: Final = 131_072
"""No answer is longer, whatever its request allows."""
MAX_PARSED_BYTES: Final = 65_536
"""A longer request is not searched for its bound."""
MAX_MODELS: Final = 4096
_SHARE: Final = 0.2
"""What the newest cost counts in the average."""


class Bound(msgspec.Struct):
    """A request's word for how long its answer may be; providers have several."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


_bound = msgspec.json.Decoder(Bound)


def expected(body: bytes) -> Usage:
    """Of an event that begins."""
    return Usage(len(body) // BYTES_PER_TOKEN, _most_output(body) or OUTPUT_TOKENS)


def of_cut(told: Usage | None, request_bytes: int, answer_bytes: int, chunks: int) -> Usage:
    """Of a stream that was cut: what it told, and in place of what it did not, what was seen of it.

    What is told early counts few output tokens, so the greater number is taken.
    """
    seen = max(chunks, answer_bytes // BYTES_PER_CHUNK)
    if told is None:
        return Usage(request_bytes // BYTES_PER_TOKEN, seen)
    inputs = request_bytes // BYTES_PER_TOKEN if told.input_tokens is None else told.input_tokens
    return Usage(inputs, max(told.output_tokens or 0, seen), told.cached_tokens)


def _most_output(body: bytes) -> int | None:
    if len(body) > MAX_PARSED_BYTES:
        return None
    try:
        bound = _bound.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    given = [most for most in msgspec.structs.astuple(bound) if most is not None and most > 0]
    return min(*given, MAX_OUTPUT_TOKENS) if given else None


class Averages:
    """What events cost of late, in US dollars: a moving average by key, of the keys told last."""

    def __init__(self, most: int = MAX_MODELS) -> None:
        self._most = most
        self._usd: dict[Hashable, float] = {}

    def tell(self, key: Hashable, usd: float) -> None:
        known = self._usd.pop(key, usd)
        self._usd[key] = known + _SHARE * (usd - known)
        if len(self._usd) > self._most:
            del self._usd[next(iter(self._usd))]

    def usd(self, key: Hashable) -> float | None:
        return self._usd.get(key)
