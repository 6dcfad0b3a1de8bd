"""Interpret the items of a stream: answer or bookkeeping, completeness, usage, and errors.

See bridge/docs/protocol.md, "When a step has answered" and "Complete or broken". The dialects are in `dialects`.
"""

from enum import Enum, auto
from typing import Any

import msgspec

from bridge.formats.dialects import Dialect, FastCheck, Mark, Unknown, dialect_of
from bridge.formats.error_reports import reported_error
from bridge.formats.item import Item, ItemKind
from bridge.formats.json_parse import has_many_parts, parse
from bridge.formats.json_spans import ABSENT, JsonType, string_in, type_of
from bridge.formats.json_text import is_json
from bridge.formats.provider_errors import ProviderFault, fault_of
from bridge.formats.response import ParsedResponse, parse_response
from bridge.formats.usage import INVOCATION_METRICS, Usage, UsageCounter, Value

__all__ = [
    "Mark",
    "ParsedResponse",
    "ProviderFault",
    "StreamReader",
    "StreamState",
    "Usage",
    "Verdict",
    "parse_response",
]


class StreamState(Enum):
    """The way in which the body of a stream ended."""

    END = auto()
    """Ended as HTTP defines: last chunk, or Content-Length reached."""
    CUT = auto()
    """Reset, or shorter than announced."""
    SILENT = auto()
    """Silent for two seconds after the finish mark."""


class Verdict(Enum):
    """Completeness of a stream that reported no error."""

    COMPLETE = auto()
    COMPLETE_CUT = auto()
    """Complete by its finish mark, but cut after it: usage may be missing."""
    BROKEN = auto()
    EMPTY = auto()
    """Ended cleanly, or with a closing mark, without any item; heartbeats do not count."""


_METRICS_AT = ((INVOCATION_METRICS,),)
_HEARTBEATS = frozenset({"ping", "heartbeat", "keepalive"})
_ANSWER = Mark.ANSWER
_MAX_TYPE_BYTES = 256
_JSON = ItemKind.JSON


class StreamReader:
    """Interpret the stream of one attempt. The dialect is detected by the content, never by the provider's name."""

    __slots__ = (
        "_answered",
        "_counters",
        "_dialect",
        "_fast_check",
        "_from_model",
        "_seen",
        "closed",
        "fault",
        "malformed",
    )

    def __init__(self, *, from_model: bool = False) -> None:
        """Start a stream. If it comes `from_model` (a model endpoint), more shapes of its first item are errors."""
        self._from_model = from_model
        self._dialect: Dialect = Unknown()
        self._fast_check: FastCheck | None = None
        self._counters = UsageCounter()
        self._seen = False
        self._answered = False
        self.closed = False
        """True after the closing mark."""
        self.fault: ProviderFault | None = None
        """The first error that the stream reported before it closed."""
        self.malformed = 0
        """Number of items with invalid JSON or UTF-8."""

    @property
    def dialect(self) -> str | None:
        """Return the name of the dialect, None while it is unknown."""
        return self._dialect.name

    @property
    def finished(self) -> bool:
        """Return True while the finish mark holds; a later item may revoke it."""
        return self._dialect.finished

    @property
    def is_empty(self) -> bool:
        """Return True while there were only heartbeats and bare closing marks."""
        return not self._seen

    @property
    def usage(self) -> Usage | None:
        """Return the token counts so far, None if there are none."""
        return self._counters.usage()

    @property
    def costs(self) -> dict[str, Any]:
        """Return the members of the usage that report a cost, unchecked."""
        return self._counters.costs()

    def read(self, item: Item) -> Mark:
        """Return the mark of `item`; `item.kind` becomes MALFORMED if its content is invalid.

        Once the stream has answered, bookkeeping may be marked ANSWER, because no item is held back any more.
        """
        fast_check = self._fast_check
        if fast_check is not None and item.kind is _JSON and item.event != "error" and not item.exception:
            data = item.data
            try:
                fast_check(data)
                if data.isascii() or data.decode():  # msgspec does not check UTF-8 in members that it skips
                    return _ANSWER
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # not a plain piece of the answer
        return self._read(item)

    def verdict(self, ending: StreamState, *, truncated: bool, clean_end_is_complete: bool) -> Verdict:
        """Return the completeness of the answer, whose body has ended. A stream with a `fault` needs no verdict.

        `truncated` means that the last bytes form no complete item. `clean_end_is_complete` means that the provider is
        known to end its streams without a mark.
        """
        clean = ending is StreamState.END and not truncated
        if self.closed:
            return Verdict.COMPLETE if self._seen else Verdict.EMPTY
        if self.finished:
            return Verdict.COMPLETE if clean or ending is StreamState.SILENT else Verdict.COMPLETE_CUT
        if clean and not self._seen:
            return Verdict.EMPTY
        if clean and (self.dialect is None or clean_end_is_complete):
            return Verdict.COMPLETE
        return Verdict.BROKEN

    def _read(self, item: Item) -> Mark:
        """Interpret an item without the fast check."""
        mark = self._interpret(item)
        self.malformed += item.kind is ItemKind.MALFORMED
        if mark is Mark.HEARTBEAT:
            return mark
        self.closed |= mark is Mark.CLOSING
        self._answered |= mark is not Mark.BOOKKEEPING
        plain_may_follow = self._answered and not (self.closed or self.finished)
        self._fast_check = self._dialect.fast_check if plain_may_follow else None
        return mark

    def _interpret(self, item: Item) -> Mark:
        if item.kind is ItemKind.DONE:
            return Mark.CLOSING
        parsed = _parsed(item)
        value = parsed if isinstance(parsed, dict) else {}
        if self._dialect.name is None:
            self._dialect = dialect_of(item.event, value) or self._dialect
        self._counters.add(value, self._dialect.usage_at)
        if not self.closed and (error := self._error_in(item, parsed, value)) is not None:
            name = item.event if item.exception else None
            self.fault = self.fault or fault_of(error, status=item.status, name=name)
            return Mark.FAILED
        if _is_heartbeat(item, value) and not self._dialect.closes(item.event, value):
            return Mark.HEARTBEAT
        self._seen |= not self.closed and not self._dialect.is_end_only(item.event, value)
        if item.kind is ItemKind.MALFORMED:
            return Mark.ANSWER
        if INVOCATION_METRICS in value:
            self._counters.add(value, _METRICS_AT)
            return Mark.CLOSING
        return self._dialect.mark(item.event, value)

    def _error_in(self, item: Item, parsed: object, value: Value) -> object | None:
        framed = item.exception or item.event == "error"
        standalone = self._from_model and not self._seen and self._dialect.name is None
        error = reported_error(parsed, item.data, framed=framed, standalone=standalone)
        return self._dialect.error_in(value) if error is None else error


def _parsed(item: Item) -> object:
    """Return the JSON value of `item`, None if it is not JSON. Mark an invalid item as MALFORMED."""
    try:
        if item.kind is ItemKind.JSON:
            return _type_only(item.data) if has_many_parts(item.data) else parse(item.data)
        if item.kind is ItemKind.TEXT:
            item.data.decode()
    except (ValueError, RecursionError):
        item.kind = ItemKind.MALFORMED
    return None


class _TypeMember(msgspec.Struct):
    type: msgspec.Raw = ABSENT


_type_member_in = msgspec.json.Decoder(_TypeMember).decode


def _type_only(data: bytes) -> Value:
    """Return only the `type` of an object that has too many parts to be decoded. Raise ValueError if it is not JSON."""
    if not is_json(data):
        raise ValueError("not JSON")
    try:
        type_ = _type_member_in(data).type
    except msgspec.DecodeError:  # not an object, or one with lone surrogates
        return {}
    is_short = type_of(type_) is JsonType.STRING and memoryview(type_).nbytes <= _MAX_TYPE_BYTES
    return {"type": string_in(type_)} if is_short else {}


def _is_heartbeat(item: Item, value: Value) -> bool:
    if item.kind is ItemKind.BYTES:
        return False
    return (
        item.event in _HEARTBEATS
        or _is_heartbeat_type(value.get("type"))
        or not item.data
        or item.data.startswith(b":")
    )


def _is_heartbeat_type(type_: object) -> bool:
    return isinstance(type_, str) and type_ in _HEARTBEATS
