"""The four scenes of the demo: what is asked, what it shows, and what must come of it. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.client import Frame, Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scene."""

    frames: Sequence[Frame]
    said: str
    """The text of the answer, as it came."""
    taped: str
    """The text on the tape that answers."""
    still_playing: int
    """Provider streams that were open when the last frame came."""

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    @property
    def types(self) -> list[str]:
        """In their order; runs of one type count once."""
        types = [frame.type for frame in self.frames]
        return [each for each, before in zip(types, [None, *types], strict=False) if each != before]


Check = Callable[[Played], Iterator[str]]
"""Yields what is not as it should be."""


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    words: str
    request: Request
    tape: str
    """The name of the one that answers."""
    check: Check
    outcome: str
    """What a played scene has shown."""
    cancel_after: int | None = None
    """Frames, after which the client has enough."""


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
    yield from _must(played.types == ["created"] and played.last.is_last, "one frame was to come")
    yield from _whole(played)


def _stream(played: Played) -> Iterator[str]:
    yield from _must(played.types == ["created", "stream", "done"], "created, then a stream, then done was to come")
    yield from _whole(played)


def _chain(played: Played) -> Iterator[str]:
    yield from _stream(played)
    attempts = [(each.step, each.status) for each in played.last.metadata.attempts]
    yield from _must(played.last.metadata.step == "1", "the second step was to answer")
    yield from _must(attempts == [("0", 503), ("1", 200)], "both attempts were to be listed")


def _cancelled(played: Played) -> Iterator[str]:
    code = played.last.error and played.last.error.code
    yield from _must(played.types == ["created", "stream", "error"], "created, a stream and an error were to come")
    yield from _must(code == 9020, f"the last frame was to say 9020, and says {code}")
    yield from _must(0 < len(played.said) < len(played.taped), "a part of the answer was to come")
    yield from _must(played.taped.startswith(played.said), "what came was to be what is on the tape")
    yield from _must(played.still_playing == 0, "the provider's stream was to be closed")


def _whole(played: Played) -> Iterator[str]:
    yield from _must(played.last.metadata.success is True, "the event was to succeed")
    yield from _must(played.said == played.taped != "", "the text was to be what is on the tape")


def _must(holds: bool, promise: str) -> Iterator[str]:
    if not holds:
        yield promise


SCENES: Final[tuple[Scene, ...]] = (
    Scene(
        title="A plain answer",
        words="One question, one answer: one frame, which holds the provider's JSON untouched.",
        request=_step("openai", "chat/completions", _chat("gpt-4o-mini", "In one sentence: what is a bridge for?")),
        tape="plain-openai",
        check=_plain,
        outcome="one frame, and it was the last",
    ),
    Scene(
        title="A stream",
        words="The answer comes as it is written: created, a frame per item, and done: the promise that it is whole.",
        request=STREAM,
        tape="stream-anthropic",
        check=_stream,
        outcome="every word of it came, and then done",
    ),
    Scene(
        title="A chain",
        words="The first provider is overloaded. The second answers, and the client sees nothing but that.",
        request=[
            _step("openai", "chat/completions", _chat("gpt-4o-mini", _BREAKFAST, stream=True)),
            _step("mistral", "v1/chat/completions", _chat("mistral-small-latest", _BREAKFAST, stream=True)),
        ],
        tape="chain-2-mistral",
        check=_chain,
        outcome='step "1" answered, and the last frame tells of both attempts',
    ),
    Scene(
        title="A cancel",
        words="A long story, and a client that has heard enough of it.",
        request=_step(
            "groq",
            "chat/completions",
            _chat("llama-3.3-70b-versatile", "Tell me the long story of a bridge, slowly.", stream=True),
        ),
        tape="long-groq",
        check=_cancelled,
        outcome="the event ended with 9020, and the provider's stream was closed by then",
        cancel_after=14,
    ),
)
