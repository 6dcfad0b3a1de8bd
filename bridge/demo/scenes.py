"""Defines the four scenes of the demo: their requests, descriptions and checks. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.client import Frame, Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Played:
    """Result of a scene."""

    frames: Sequence[Frame]
    received: str
    """Text of the answer as received."""
    taped: str
    """Text on the tape that answers."""
    still_playing: int
    """Number of provider streams that were open at the last frame."""

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    @property
    def types(self) -> list[str]:
        """Return the types of the frames in order; consecutive equal types count once."""
        types = [frame.type for frame in self.frames]
        return [each for each, before in zip(types, [None, *types], strict=False) if each != before]


Check = Callable[[Played], Iterator[str]]
"""Yields a message for each deviation."""


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    words: str
    request: Request
    tape: str
    """Name of the tape that answers."""
    check: Check
    outcome: str
    """Text for a successful scene."""
    cancel_after: int | None = None
    """Number of frames after which the client cancels."""


def _chat(model: str, question: str, **more: object) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


def _step(provider: str, endpoint: str, query: Json, **more: object) -> Json:
    return {"provider": provider, "endpoint": endpoint, **more, "query": query}


STREAM: Final = _step(
    "anthropic",
    "v1/messages",
    _chat("claude-sonnet-4-5", "Two sentences about bridges, please.", max_tokens=256, stream=True),
    headers={"anthropic-version": "2023-06-01"},
)
_BREAKFAST: Final = "Which bridge should one see before breakfast?"


def _plain(played: Played) -> Iterator[str]:
    yield from _require(played.types == ["created"] and played.last.is_last, "expected one frame")
    yield from _complete(played)


def _stream(played: Played) -> Iterator[str]:
    yield from _require(played.types == ["created", "stream", "done"], "expected created, a stream and done")
    yield from _complete(played)


def _chain(played: Played) -> Iterator[str]:
    yield from _stream(played)
    attempts = [(each.step, each.status) for each in played.last.metadata.attempts]
    yield from _require(played.last.metadata.step == "1", "expected the answer of the second step")
    yield from _require(attempts == [("0", 503), ("1", 200)], "expected a list of both attempts")


def _cancelled(played: Played) -> Iterator[str]:
    code = played.last.error and played.last.error.code
    yield from _require(played.types == ["created", "stream", "error"], "expected created, a stream and an error")
    yield from _require(code == 9020, f"expected code 9020 in the last frame, got {code}")
    yield from _require(0 < len(played.received) < len(played.taped), "expected a part of the answer")
    yield from _require(played.taped.startswith(played.received), "expected the beginning of the text on the tape")
    yield from _require(played.still_playing == 0, "expected the provider's stream to be closed")


def _complete(played: Played) -> Iterator[str]:
    yield from _require(played.last.metadata.success is True, "expected a successful event")
    yield from _require(played.received == played.taped != "", "expected the text on the tape")


def _require(holds: bool, promise: str) -> Iterator[str]:
    if not holds:
        yield promise


SCENES: Final[tuple[Scene, ...]] = (
    Scene(
        title="A plain answer",
        words="One request, one answer: a single frame that contains the provider's JSON unchanged.",
        request=_step("openai", "chat/completions", _chat("gpt-4o-mini", "In one sentence: what is a bridge for?")),
        tape="plain-openai",
        check=_plain,
        outcome="one frame, which is also the last",
    ),
    Scene(
        title="A stream",
        words="The answer arrives as it is generated: created, a frame per item, and done once it is complete.",
        request=STREAM,
        tape="stream-anthropic",
        check=_stream,
        outcome="the complete text arrived, then done",
    ),
    Scene(
        title="A chain",
        words="The first provider is overloaded. The second one answers, and the client receives only its answer.",
        request=[
            _step("openai", "chat/completions", _chat("gpt-4o-mini", _BREAKFAST, stream=True)),
            _step("mistral", "v1/chat/completions", _chat("mistral-small-latest", _BREAKFAST, stream=True)),
        ],
        tape="chain-2-mistral",
        check=_chain,
        outcome='step "1" answered, and the last frame lists both attempts',
    ),
    Scene(
        title="A cancel",
        words="A long story, and a client that cancels it.",
        request=_step(
            "groq",
            "chat/completions",
            _chat("llama-3.3-70b-versatile", "Tell me the long story of a bridge, slowly.", stream=True),
        ),
        tape="long-groq",
        check=_cancelled,
        outcome="the event ended with 9020, and the provider's stream was closed before that",
        cancel_after=14,
    ),
)
