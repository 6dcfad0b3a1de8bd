"""What the items of a stream mean: whether they answer, whether the answer is whole, what it cost, what went wrong.

PROTOCOL.md, "Answering, and falling back inside a stream" and "Whole or broken". The dialects are in `families`.
"""

from enum import Enum, auto
from typing import Any

import msgspec

from bridge.wire.answers import Answer, read_answer
from bridge.wire.families import Dialect, Glance, Mark, Unknown, dialect_of
from bridge.wire.faults import Fault, fault_of
from bridge.wire.item import Item, Kind
from bridge.wire.parsing import parse
from bridge.wire.usage import INVOCATION_METRICS, Tally, Usage, Value

__all__ = ["Answer", "Ending", "Fault", "Mark", "StreamReader", "Usage", "Verdict", "read_answer"]


class Ending(Enum):
    """How the body of a stream came to its end."""

    END = auto()
    """As HTTP has it: last chunk, or Content-Length reached."""
    CUT = auto()
    """Reset, or shorter than announced."""
    SILENT = auto()
    """Nothing more for two seconds after the finish mark."""


class Verdict(Enum):
    WHOLE = auto()
    WHOLE_CUT = auto()
    """Whole by its finish mark, but cut after it: usage may be missing."""
    BROKEN = auto()
    EMPTY = auto()
    """Ended cleanly without a single item."""


_METRICS_AT = ((INVOCATION_METRICS,),)
_ANSWER = Mark.ANSWER
_JSON = Kind.JSON


class StreamReader:
    """Reads one attempt's stream. The dialect is told by what the stream holds, never by the provider's name."""

    __slots__ = ("_answered", "_dialect", "_glance", "_seen", "_tally", "closed", "fault")

    def __init__(self) -> None:
        self._dialect: Dialect = Unknown()
        self._glance: Glance | None = None
        self._tally = Tally()
        self._seen = False
        self._answered = False
        self.closed = False
        """The closing mark came."""
        self.fault: Fault | None = None
        """The first error that the stream reported before it closed."""

    @property
    def dialect(self) -> str | None:
        return self._dialect.name

    @property
    def finished(self) -> bool:
        """Whether the finish mark holds now; what follows may take it back."""
        return self._dialect.finished

    @property
    def usage(self) -> Usage | None:
        return self._tally.usage()

    @property
    def costs(self) -> dict[str, Any]:
        """The members of the usage that tell a cost, unchecked."""
        return self._tally.costs()

    def read(self, item: Item) -> Mark:
        """What `item` is; `item.kind` becomes MALFORMED when it is not what its first bytes promised.

        Once the stream has answered, bookkeeping may be marked ANSWER: nothing is held back any more.
        """
        glance = self._glance
        if glance is not None and item.kind is _JSON and item.event != "error":
            data = item.data
            try:
                glance(data)
                if data.isascii() or data.decode():  # msgspec checks no UTF-8 in what it skips
                    return _ANSWER
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # something more than a plain piece, or less
        return self._read(item)

    def verdict(self, ending: Ending, *, truncated: bool, clean_end_is_whole: bool) -> Verdict:
        """Whether the answer is whole, now that the body has ended so; a stream with a `fault` needs no verdict.

        `truncated`: bytes were left over that made no item. `clean_end_is_whole`: the provider is known to end its
        streams without a mark.
        """
        clean = ending is Ending.END and not truncated
        if self.closed:
            return Verdict.WHOLE
        if self.finished:
            return Verdict.WHOLE if clean or ending is Ending.SILENT else Verdict.WHOLE_CUT
        if clean and not self._seen:
            return Verdict.EMPTY
        if clean and (self.dialect is None or clean_end_is_whole):
            return Verdict.WHOLE
        return Verdict.BROKEN

    def _read(self, item: Item) -> Mark:
        """The general way."""
        mark = self._interpret(item)
        self._seen = True
        self.closed |= mark is Mark.CLOSING
        self._answered |= mark is not Mark.BOOKKEEPING
        plain_may_follow = self._answered and not (self.closed or self.finished)
        self._glance = self._dialect.glance if plain_may_follow else None
        return mark

    def _interpret(self, item: Item) -> Mark:
        if item.kind is Kind.DONE:
            return Mark.CLOSING
        value = _object_in(item)
        if self._dialect.name is None:
            self._dialect = dialect_of(item.event, value) or self._dialect
        self._tally.add(value, self._dialect.usage_at)
        error = None if self.closed else _error_in(item, value) or self._dialect.error_in(value)
        if error is not None:
            self.fault = self.fault or fault_of(error, name=item.event if item.exception else None)
            return Mark.FAILED
        if item.kind is Kind.MALFORMED:
            return Mark.ANSWER
        if INVOCATION_METRICS in value:
            self._tally.add(value, _METRICS_AT)
            return Mark.CLOSING
        return self._dialect.mark(item.event, value)


def _object_in(item: Item) -> Value:
    """The JSON object that `item` is, empty if it is something else. Checks the item on the way."""
    try:
        if item.kind is Kind.JSON:
            value = parse(item.data)
            return value if isinstance(value, dict) else {}
        if item.kind is Kind.TEXT:
            item.data.decode()
    except (ValueError, RecursionError):
        item.kind = Kind.MALFORMED
    return {}


def _error_in(item: Item, value: Value) -> object | None:
    """The error that `item` reports in a way that is taken for one in every dialect; `object` is Mistral's."""
    by_framing = item.exception or item.event == "error"
    if by_framing or value.get("error") or value.get("type") == "error" or value.get("object") == "error":
        return value or item.data.decode(errors="replace") or item.event or "error"
    return None
