"""The dialects of OpenAI: chat and completions, Responses, audio, images, and runs of Assistants."""

from typing import Literal

import msgspec

from bridge.formats.dialects.base import (
    Dialect,
    EventDialect,
    FastCheck,
    Mark,
    NamedEventDialect,
    PlainItem,
    index_of,
    is_reason,
    objects,
)
from bridge.formats.usage import Value


class _PlainChoice(msgspec.Struct, gc=False):
    index: Literal[0] = 0
    finish_reason: None = None
    usage: None = None


class _PlainChat(PlainItem, kw_only=True):
    type: None = None
    choices: tuple[_PlainChoice]
    object: Literal["chat.completion.chunk", "text_completion", "chat.completion", ""] | None = None
    x_groq: None = None


class OpenAiChat(Dialect):
    """OpenAI chat and completions, and their many followers."""

    name = "openai-chat"
    usage_at = (("usage",), ("x_groq", "usage"), ("choices", 0, "usage"))  # the last path is Moonshot's
    fast_check: FastCheck | None = msgspec.json.Decoder(_PlainChat).decode

    def __init__(self) -> None:
        self._ended: dict[int, bool] = {}

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("choices"), list)

    def mark(self, event: str | None, value: Value) -> Mark:
        if not value.get("choices", True):
            return Mark.BOOKKEEPING
        choices = objects(value.get("choices"))
        answers = [self._record(choice) for choice in choices]
        self.finished = bool(self._ended) and all(self._ended.values())
        return Mark.ANSWER if any(answers) or not choices else Mark.BOOKKEEPING

    def _record(self, choice: Value) -> bool:
        """Record a choice and return True if it has content.

        A choice that continues after its finish_reason is not finished.
        """
        index, has_content = index_of(choice), _has_content(choice)
        if is_reason(choice.get("finish_reason")):
            self._ended[index] = has_content = True
            self.fast_check = None  # the fast check cannot see if a choice continues
        elif has_content or index not in self._ended:
            self._ended[index] = False
        return has_content


def _has_content(choice: Value) -> bool:
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        return True
    return bool(choice.get("text")) or any(part not in (None, "") for name, part in delta.items() if name != "role")


class _PlainResponses(PlainItem, kw_only=True):
    object: None = None
    type: Literal[
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    ]


class OpenAiResponses(EventDialect):
    """The stream of OpenAI's Responses API."""

    name = "openai-responses"
    usage_at = (("response", "usage"),)
    fast_check = msgspec.json.Decoder(_PlainResponses).decode
    bookkeeping = frozenset({"response.created", "response.queued", "response.in_progress"})
    closing = frozenset({"response.completed", "response.incomplete", "response.cancelled"})

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value).startswith("response.")

    def error_in(self, value: Value) -> object | None:
        return (value.get("response") or value) if self.event_name(None, value) == "response.failed" else None


class _PlainAudio(PlainItem, kw_only=True):
    object: None = None
    type: Literal["transcript.text.delta", "speech.audio.delta"]


class OpenAiAudio(EventDialect):
    """Transcriptions and speech that are streamed as events."""

    name = "openai-audio"
    fast_check = msgspec.json.Decoder(_PlainAudio).decode
    closing = frozenset({"transcript.text.done", "speech.audio.done"})

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value).startswith(("transcript.text.", "speech.audio."))


class OpenAiImage(EventDialect):
    """Generated or edited images: there may be several, so `completed` is not a closing mark."""

    name = "openai-image"
    _completed = frozenset({"image_generation.completed", "image_edit.completed"})

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value).startswith(("image_generation.", "image_edit."))

    def mark(self, event: str | None, value: Value) -> Mark:
        self.finished = self.event_name(event, value) in self._completed
        return Mark.ANSWER


class OpenAiThread(NamedEventDialect):
    """A run of an assistant. `done`, the closing mark, has the data `[DONE]`."""

    name = "openai-thread"
    _ends = frozenset(
        f"thread.run.{end}" for end in ("completed", "incomplete", "cancelled", "expired", "requires_action")
    )

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value).startswith("thread.")

    def mark(self, event: str | None, value: Value) -> Mark:
        self.finished = self.event_name(event, value) in self._ends
        return Mark.ANSWER
