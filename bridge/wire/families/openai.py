"""OpenAI's two dialects."""

from typing import Literal

import msgspec

from bridge.wire.families.family import Dialect, Glance, Mark, Plain, Worded, index_of, objects
from bridge.wire.usage import Value


class _PlainChoice(msgspec.Struct, gc=False):
    index: Literal[0] = 0
    finish_reason: None = None
    usage: None = None


class _PlainChat(Plain):
    choices: tuple[_PlainChoice]
    x_groq: None = None


class OpenAiChat(Dialect):
    """OpenAI chat, completions and their many followers."""

    name = "openai-chat"
    usage_at = (("usage",), ("x_groq", "usage"), ("choices", 0, "usage"))  # the last is Moonshot's
    glance: Glance | None = msgspec.json.Decoder(_PlainChat).decode

    def __init__(self) -> None:
        self._ended: dict[int, bool] = {}

    @classmethod
    def tells(cls, event: str | None, value: Value) -> bool:
        return isinstance(value.get("choices"), list)

    def error_in(self, value: Value) -> object | None:
        failed = [choice for choice in objects(value.get("choices")) if choice.get("finish_reason") == "error"]
        return (failed[0].get("error") or "The provider ended its answer with finish_reason error") if failed else None

    def mark(self, event: str | None, value: Value) -> Mark:
        if not value.get("choices", True):
            return Mark.BOOKKEEPING
        choices = objects(value.get("choices"))
        answers = [self._note(choice) for choice in choices]
        self.finished = bool(self._ended) and all(self._ended.values())
        return Mark.ANSWER if any(answers) or not choices else Mark.BOOKKEEPING

    def _note(self, choice: Value) -> bool:
        """Whether the choice says anything. One that goes on after its finish_reason had not finished."""
        index, says = index_of(choice), _says(choice)
        if choice.get("finish_reason"):
            self._ended[index] = says = True
            self.glance = None  # whether a choice goes on is more than a glance can see
        elif says or index not in self._ended:
            self._ended[index] = False
        return says


def _says(choice: Value) -> bool:
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict):
        return True
    return bool(choice.get("text")) or any(part not in (None, "") for name, part in delta.items() if name != "role")


class _PlainResponses(Plain):
    type: Literal[
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    ]


class OpenAiResponses(Worded):
    name = "openai-responses"
    usage_at = (("response", "usage"),)
    glance = msgspec.json.Decoder(_PlainResponses).decode
    bookkeeping = frozenset({"response.created", "response.queued", "response.in_progress"})
    closing = frozenset({"response.completed", "response.incomplete", "response.cancelled"})

    @classmethod
    def tells(cls, event: str | None, value: Value) -> bool:
        return cls.word(event, value).startswith("response.")

    def error_in(self, value: Value) -> object | None:
        return (value.get("response") or value) if self.word(None, value) == "response.failed" else None
