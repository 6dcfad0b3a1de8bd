"""The dialects of Anthropic, Gemini, Cohere (v1 and v2), Workers AI, Ollama, TGI and Replicate."""

from typing import Literal

import msgspec

from bridge.formats.dialects.base import (
    Dialect,
    EventDialect,
    Mark,
    NamedEventDialect,
    PlainItem,
    index_of,
    is_reason,
    objects,
)
from bridge.formats.usage import Value, at


class _PlainAnthropic(PlainItem, kw_only=True):
    object: None = None
    type: Literal["content_block_delta"]


class Anthropic(EventDialect):
    """Anthropic Messages, served by Anthropic and in Bedrock's invoke streams."""

    name = "anthropic"
    usage_at = (("message", "usage"), ("usage",))
    fast_check = msgspec.json.Decoder(_PlainAnthropic).decode
    bookkeeping = frozenset({"message_start"})
    closing = end_only = frozenset({"message_stop"})
    _content = frozenset({"content_block_start", "content_block_delta", "content_block_stop"})
    known_events = _content | {"message_start", "message_delta", "message_stop"}

    def mark(self, event: str | None, value: Value) -> Mark:
        if is_reason(at(value, ("delta", "stop_reason"))) and self.event_name(event, value) == "message_delta":
            self.finished = True
        elif self.event_name(event, value) in self._content:
            self.finished = False
        return super().mark(event, value)


class Gemini(Dialect):
    """Gemini on AI Studio and Vertex. The last chunk of each candidate decides: translators send STOP early."""

    name = "gemini"
    usage_at = (("usageMetadata",),)

    def __init__(self) -> None:
        self._ended: dict[int, bool] = {}

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("candidates"), list) or "usageMetadata" in value or "promptFeedback" in value

    def mark(self, event: str | None, value: Value) -> Mark:
        candidates = objects(value.get("candidates"))
        for candidate in candidates:
            self._ended[index_of(candidate)] = is_reason(candidate.get("finishReason"))
        if candidates:
            self.finished = all(self._ended.values())
        if at(value, ("promptFeedback", "blockReason")):
            self.finished = True
            return Mark.ANSWER
        return Mark.ANSWER if candidates or not value else Mark.BOOKKEEPING


class CohereV1(EventDialect):
    """The stream of Cohere's chat API, version 1."""

    name = "cohere-v1"
    usage_at = (("response", "meta", "billed_units"), ("response", "meta", "tokens"))
    bookkeeping = frozenset({"stream-start"})
    closing = frozenset({"stream-end"})

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return "stream-end" if value.get("is_finished") is True else str(value.get("event_type"))

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("is_finished"), bool)

    def error_in(self, value: Value) -> object | None:
        reasons = (value.get("finish_reason"), at(value, ("response", "finish_reason")))
        return "Cohere ended its answer with finish_reason ERROR" if "ERROR" in reasons else None


class _PlainCohere(PlainItem, kw_only=True):
    object: None = None
    type: Literal["content-delta", "tool-plan-delta", "tool-call-delta"]


class CohereV2(EventDialect):
    """The stream of Cohere's chat API, version 2."""

    name = "cohere-v2"
    usage_at = (("delta", "usage", "billed_units"), ("delta", "usage", "tokens"), ("delta", "usage"))
    fast_check = msgspec.json.Decoder(_PlainCohere).decode
    bookkeeping = frozenset({"message-start"})
    closing = frozenset({"message-end"})
    known_events = frozenset({"message-start", "content-start", "content-delta", "tool-plan-delta", "tool-call-start"})

    def error_in(self, value: Value) -> object | None:
        failed = at(value, ("delta", "finish_reason")) == "ERROR"
        return (value["delta"].get("error") or "Cohere ended its answer with finish_reason ERROR") if failed else None


class WorkersAi(Dialect):
    """The format of Workers AI; its streams in OpenAI's format are recognised by their choices."""

    name = "workers-ai"

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("response"), str) and "done" not in value

    def error_in(self, value: Value) -> object | None:
        return value if value.get("errors") else None

    def mark(self, event: str | None, value: Value) -> Mark:
        """Return the mark. A chunk with text beside its counts may be any chunk, so it is not a finish mark."""
        counts = bool(value.get("usage")) and not value.get("response")
        self.finished = counts or is_reason(value.get("finish_reason"))
        return Mark.ANSWER


class Ollama(Dialect):
    """The stream of Ollama's own API."""

    name = "ollama"
    usage_at = ((),)

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("done"), bool) and "model" in value

    def mark(self, event: str | None, value: Value) -> Mark:
        return Mark.CLOSING if value.get("done") is True else Mark.ANSWER


class Tgi(Dialect):
    """Text Generation Inference, as Hugging Face serves it."""

    name = "tgi"
    usage_at = (("details",),)

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("token"), dict) and "generated_text" in value

    def mark(self, event: str | None, value: Value) -> Mark:
        self.finished = value.get("generated_text") is not None
        return Mark.ANSWER


class Replicate(NamedEventDialect):
    """The stream of a prediction: its data is text, and only the event names have a meaning."""

    name = "replicate"
    known_events = frozenset({"output"})
    closing = frozenset({"done"})
