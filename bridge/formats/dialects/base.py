"""What every dialect of a stream is: how to tell it, what its marks are, where its token counts stand."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar

import msgspec

from bridge.formats.usage import INVOCATION_METRICS, Path, Value


class Mark(IntEnum):
    """What one item is to its stream."""

    BOOKKEEPING = 0
    """Says nothing yet: the step has not answered by it."""
    ANSWER = 1
    CLOSING = 2
    """The closing mark: the answer is whole, whatever the connection does now."""
    FAILED = 3
    """The provider reports an error."""
    HEARTBEAT = 4
    """Says only that the connection lives."""


class PlainItem(msgspec.Struct, kw_only=True, gc=False):
    """A glance at an item: one that decodes into this is a piece of the answer and nothing more.

    Members that would say more must be absent or null. What is not named is skipped, but checked to be JSON.
    """

    error: None = None
    errors: None = None
    status: None = None
    finish_reason: None = None
    base_resp: None = None
    usage: None = None
    metrics: None = msgspec.field(default=None, name=INVOCATION_METRICS)


FastCheck = Callable[[bytes], object]
"""Decodes an item into its dialect's `Plain`, or raises."""


class Dialect:
    """How the items of one stream are read; an instance lives as long as its stream.

    `event` is always the event of the item's framing, `value` its JSON object, empty if it is none.
    """

    name: ClassVar[str | None] = None
    usage_at: ClassVar[tuple[Path, ...]] = (("usage",),)
    fast_check: FastCheck | None = None
    """The quick way to know a plain piece of the answer; the general way must come to the same."""
    finished = False
    """Whether the finish mark holds after the items so far."""

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        """Whether this item can only be of this dialect."""
        return False

    def error_in(self, value: Value) -> object | None:
        """The error that `value` reports in this dialect's own way."""
        return None

    def mark(self, event: str | None, value: Value) -> Mark:
        """What an item that reports no error is; takes note of finish marks."""
        return Mark.ANSWER

    def closes(self, event: str | None, value: Value) -> bool:
        """True if a word of the item is the closing mark."""
        return False

    def is_end_only(self, event: str | None, value: Value) -> bool:
        """True if the item can say nothing but that the stream has ended."""
        return False


class Unknown(Dialect):
    """No dialect, or none told yet."""

    usage_at = (("usage",), ("interaction", "usage"))


class EventDialect(Dialect):
    """A dialect whose items each say in one word what they are."""

    known_events: ClassVar[frozenset[str]] = frozenset()
    bookkeeping: ClassVar[frozenset[str]] = frozenset()
    closing: ClassVar[frozenset[str]] = frozenset()
    end_only: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return word if isinstance(word := value.get("type"), str) else ""

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value) in cls.known_events

    def mark(self, event: str | None, value: Value) -> Mark:
        word = self.event_name(event, value)
        if word in self.closing:
            return Mark.CLOSING
        return Mark.BOOKKEEPING if word in self.bookkeeping else Mark.ANSWER

    def closes(self, event: str | None, value: Value) -> bool:
        return self.event_name(event, value) in self.closing

    def is_end_only(self, event: str | None, value: Value) -> bool:
        return self.event_name(event, value) in self.end_only


class NamedEventDialect(EventDialect):
    """A dialect whose words are the events of the framing."""

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return event or ""


def objects(value: Any) -> list[Value]:
    """The objects of an array; none if it is no array."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def index_of(numbered: Value) -> int:
    """Which choice or candidate this is. Followers leave the index out, or null, where there is but one."""
    index = numbered.get("index")
    return index if isinstance(index, int) else 0


def is_reason(word: Any) -> bool:
    """True if it says why an answer ended; some servers write null as a text, or a proto's default."""
    return bool(word) and word not in ("null", "FINISH_REASON_UNSPECIFIED")
