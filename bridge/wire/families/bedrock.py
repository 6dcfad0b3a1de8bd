"""The dialects of Bedrock's event streams: converse, and those that only invoke streams speak."""

import msgspec

from bridge.wire.families.family import Dialect, Evented, Glance, Mark, Plain, is_reason, objects
from bridge.wire.usage import Value


class _PlainConverse(Plain, kw_only=True):
    type: None = None
    object: None = None
    delta: msgspec.Raw


class BedrockConverse(Evented):
    name = "bedrock-converse"
    glance: Glance | None = msgspec.json.Decoder(_PlainConverse).decode
    bookkeeping = frozenset({"messageStart"})
    closing = frozenset({"messageStop"})
    telling = bookkeeping | closing | {"contentBlockStart", "contentBlockDelta", "contentBlockStop"}


class BedrockNova(BedrockConverse):
    """Nova in an invoke stream: converse's events, each the one member of its chunk that matters."""

    name = "bedrock-nova"
    usage_at = (("metadata", "usage"),)
    glance = None

    @classmethod
    def word(cls, event: str | None, value: Value) -> str:
        return next((name for name in value if name in cls.telling), "")


class BedrockInvoke(Dialect):
    """Titan, Llama and Mistral in an invoke stream. Other models there speak a dialect of their own."""

    name = "bedrock-invoke"
    usage_at = ((),)

    @classmethod
    def tells(cls, event: str | None, value: Value) -> bool:
        reasons = {"outputText": "completionReason", "generation": "stop_reason"}
        return any(text in value and reason in value for text, reason in reasons.items()) or (
            event == "chunk" and isinstance(value.get("outputs"), list)
        )

    def mark(self, event: str | None, value: Value) -> Mark:
        chunks = (value, *objects(value.get("outputs")))
        closes = any(is_reason(chunk.get(reason)) for chunk in chunks for reason in ("completionReason", "stop_reason"))
        return Mark.CLOSING if closes else Mark.ANSWER
