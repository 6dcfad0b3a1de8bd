"""The dialects of Bedrock's event streams: converse, and those of invoke streams."""

import msgspec

from bridge.formats.dialects.base import Dialect, FastCheck, Mark, NamedEventDialect, PlainItem, is_reason, objects
from bridge.formats.usage import Value


class _PlainConverse(PlainItem, kw_only=True):
    type: None = None
    object: None = None
    delta: msgspec.Raw


class BedrockConverse(NamedEventDialect):
    """The stream of Bedrock's Converse API."""

    name = "bedrock-converse"
    fast_check: FastCheck | None = msgspec.json.Decoder(_PlainConverse).decode
    bookkeeping = frozenset({"messageStart"})
    closing = frozenset({"messageStop"})
    known_events = bookkeeping | closing | {"contentBlockStart", "contentBlockDelta", "contentBlockStop"}


class BedrockNova(BedrockConverse):
    """Nova in an invoke stream: the events of converse, each as the one relevant member of its chunk."""

    name = "bedrock-nova"
    usage_at = (("metadata", "usage"),)
    fast_check = None

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return next((name for name in value if name in cls.known_events), "")


class BedrockInvoke(Dialect):
    """Titan, Llama and Mistral in an invoke stream. Other models use their own dialect there."""

    name = "bedrock-invoke"
    usage_at = ((),)

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        reasons = {"outputText": "completionReason", "generation": "stop_reason"}
        return any(text in value and reason in value for text, reason in reasons.items()) or (
            event == "chunk" and isinstance(value.get("outputs"), list)
        )

    def mark(self, event: str | None, value: Value) -> Mark:
        chunks = (value, *objects(value.get("outputs")))
        closes = any(is_reason(chunk.get(reason)) for chunk in chunks for reason in ("completionReason", "stop_reason"))
        return Mark.CLOSING if closes else Mark.ANSWER
