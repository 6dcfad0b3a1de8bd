"""The dialects of streams: one small class each, and the table of them all.

The rules are in bridge/docs/protocol.md, "When a step has answered", the marks of each provider in
bridge/docs/providers.md, "End marks". To add a dialect, write its class and add it to `DIALECTS`.
"""

from bridge.formats.dialects.base import Dialect, FastCheck, Mark, Unknown
from bridge.formats.dialects.bedrock import BedrockConverse, BedrockInvoke, BedrockNova
from bridge.formats.dialects.openai import OpenAiAudio, OpenAiChat, OpenAiImage, OpenAiResponses, OpenAiThread
from bridge.formats.dialects.others import Anthropic, CohereV1, CohereV2, Gemini, Ollama, Replicate, Tgi, WorkersAi
from bridge.formats.usage import Value

__all__ = ["DIALECTS", "Anthropic", "Dialect", "FastCheck", "Mark", "Unknown", "dialect_of"]

DIALECTS: tuple[type[Dialect], ...] = (
    OpenAiChat,
    OpenAiResponses,
    OpenAiAudio,
    OpenAiImage,
    OpenAiThread,
    Anthropic,
    Gemini,
    CohereV2,
    CohereV1,
    WorkersAi,
    Ollama,
    Tgi,
    Replicate,
    BedrockConverse,
    BedrockNova,
    BedrockInvoke,
)
"""Dialects in the order in which they are tried."""


def dialect_of(event: str | None, value: Value) -> Dialect | None:
    """Return a reader for the dialect that this item identifies; None if it identifies none."""
    return next((dialect() for dialect in DIALECTS if dialect.matches(event, value)), None)
