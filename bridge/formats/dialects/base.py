"""Define the interface of a dialect: how to detect it, its marks, and the paths of its token counts."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar

import msgspec

from bridge.formats.usage import INVOCATION_METRICS, Path, Value


class Mark(IntEnum):
    """The role of an item in its stream."""

    BOOKKEEPING = 0
    """Carries no answer: the step has not answered yet."""
    ANSWER = 1
    CLOSING = 2
    """The closing mark: the answer is complete, whatever happens to the connection."""
    FAILED = 3
    """The provider reports an error."""
    HEARTBEAT = 4
    """Shows only that the connection is alive."""


class PlainItem(msgspec.Struct, kw_only=True, gc=False):
    """Fast check of an item: an item that decodes into this struct is a piece of the answer and nothing more.

    Members with other meanings must be absent or null. Unnamed members are skipped, but checked to be JSON.
    """

    error: None = None
    errors: None = None
    status: None = None
    finish_reason: None = None
    base_resp: None = None
    usage: None = None
    metrics: None = msgspec.field(default=None, name=INVOCATION_METRICS)


FastCheck = Callable[[bytes], object]
"""Decodes an item into the plain item of its dialect, or raises."""


class Dialect:
    """Interpreter of the items of one stream; an instance lives as long as its stream.

    `event` is the event name of the item's framing, `value` its JSON object, empty if it has none.
    """

    name: ClassVar[str | None] = None
    usage_at: ClassVar[tuple[Path, ...]] = (("usage",),)
    fast_check: FastCheck | None = None
    """Recognises a plain piece of the answer quickly; `mark` must return ANSWER for it."""
    finished = False
    """True if the finish mark holds after the items so far."""

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        """Return True if this item can only be of this dialect."""
        return False

    def error_in(self, value: Value) -> object | None:
        """Return the error that `value` reports in the way of this dialect."""
        return None

    def mark(self, event: str | None, value: Value) -> Mark:
        """Return the mark of an item that reports no error, and record finish marks."""
        return Mark.ANSWER

    def closes(self, event: str | None, value: Value) -> bool:
        """Return True if the item's event name is a closing mark."""
        return False

    def is_end_only(self, event: str | None, value: Value) -> bool:
        """Return True if the item only reports the end of the stream."""
        return False


class Unknown(Dialect):
    """Unknown dialect, or not detected yet."""

    usage_at = (("usage",), ("interaction", "usage"))


class EventDialect(Dialect):
    """A dialect whose items have an event name in their member `type`."""

    known_events: ClassVar[frozenset[str]] = frozenset()
    bookkeeping: ClassVar[frozenset[str]] = frozenset()
    closing: ClassVar[frozenset[str]] = frozenset()
    end_only: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return name if isinstance(name := value.get("type"), str) else ""

    @classmethod
    def matches(cls, event: str | None, value: Value) -> bool:
        return cls.event_name(event, value) in cls.known_events

    def mark(self, event: str | None, value: Value) -> Mark:
        name = self.event_name(event, value)
        if name in self.closing:
            return Mark.CLOSING
        return Mark.BOOKKEEPING if name in self.bookkeeping else Mark.ANSWER

    def closes(self, event: str | None, value: Value) -> bool:
        return self.event_name(event, value) in self.closing

    def is_end_only(self, event: str | None, value: Value) -> bool:
        return self.event_name(event, value) in self.end_only


class NamedEventDialect(EventDialect):
    """A dialect whose event names come from the framing."""

    @classmethod
    def event_name(cls, event: str | None, value: Value) -> str:
        return event or ""


def objects(value: Any) -> list[Value]:
    """Return the objects of an array; none if it is not an array."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def index_of(numbered: Value) -> int:
    """Return the index of a choice or candidate. Some providers omit the index, or send null, if there is only one."""
    index = numbered.get("index")
    return index if isinstance(index, int) else 0


def is_reason(reason: Any) -> bool:
    """Return True for a finish reason. Some servers send null as a string, or the default of a proto enum."""
    return bool(reason) and reason not in ("null", "FINISH_REASON_UNSPECIFIED")
