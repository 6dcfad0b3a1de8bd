"""What a client may say: `universal.create` and `universal.cancel`, parsed and checked (PROTOCOL.md, A "Request").

`parse` never raises for what a client wrote: a message that cannot be taken becomes a `Refused` that names its fault
and, when one can be read, its event.
"""

from typing import Final

import msgspec

from bridge.errors import BadField, BadMessage, BridgeError, TooLarge, UnknownType
from bridge.settings.step import StepSettings
from bridge.wire import parsing
from bridge.wire.json_text import HARMLESS, check_utf8, closed_above, copied, deeper_than, without_lone_surrogates
from bridge.wire.spans import ABSENT, JsonType, string_in, type_of
from bridge.wire.steps import Limits, Request, Step, StepReader

__all__ = ["Cancel", "Create", "EventId", "Limits", "Refused", "Step", "parse"]

MAX_EVENT_ID_CHARS: Final = 256

_LONGEST_ID: Final = 12 * MAX_EVENT_ID_CHARS + 2
"""As it may be written: every character as two escapes, between quotes."""

_CREATE: Final = "universal.create"
_CANCEL: Final = "universal.cancel"
_TYPES: Final = (_CREATE, _CANCEL)

_HEAD_DEPTH: Final = 8
"""How deep a message that nests too deep to be read is looked into for its type and eventId."""


class EventId(msgspec.Struct, frozen=True):
    """A client's name for an event. `key` compares; `raw` is the JSON to echo, as it came."""

    key: str | int
    raw: bytes


class Create(msgspec.Struct, frozen=True):
    """Start an event. `event_id` is None when the client gave none; `warnings` tell of clamped settings."""

    event_id: EventId | None
    steps: list[Step]
    warnings: list[str]


class Cancel(msgspec.Struct, frozen=True):
    """Stop an event."""

    event_id: EventId


class Refused(msgspec.Struct, frozen=True):
    """A message that cannot be taken.

    An `owned` fault is the ordinary last frame of an event (which gets an id made for it when the client gave none);
    any other belongs to the message alone.
    """

    error: BridgeError
    event_id: EventId | None
    owned: bool


def parse(data: bytes, defaults: StepSettings, limits: Limits) -> Create | Cancel | Refused:
    """Read one message. `defaults` are the gateway's settings, with the handshake's laid over them."""
    event_id = None
    owned = False
    try:
        message = _Message(data)
        request = Request(message.request, limits.max_steps)
        event_id = message.event_id(request)
        if message.type() == _CANCEL:
            return _cancel(event_id)
        owned = True
        message.check_size(limits)
        reader = StepReader(message.as_written, limits)
        return Create(event_id, reader.read(request, defaults), reader.warnings)
    except BridgeError as error:
        return Refused(error.bare(), event_id, owned)
    except RecursionError:
        return Refused(TooLarge("the message nests too deep to be read"), event_id, owned)


def _cancel(event_id: EventId | None) -> Cancel:
    if event_id is None:
        raise BadField("eventId: missing; universal.cancel names the event to stop")
    return Cancel(event_id)


class _Members(msgspec.Struct, rename="camel", gc=False):
    type: msgspec.Raw = ABSENT
    event_id: msgspec.Raw = ABSENT
    request: msgspec.Raw = ABSENT


_members = msgspec.json.Decoder(_Members)


class _Message:
    """A message's bytes, and the members of it that matter. Raises BadMessage or TooLarge when it cannot be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._harmless = b""
        self._shown: bytearray | None = None
        self._is_cut = False
        try:
            self._members = self._read(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(f"the message is no JSON object: {error}") from None
        self.request = self._members.request

    def _read(self, data: bytes) -> _Members:
        check_utf8(data)  # msgspec does not look at what it skips
        try:
            return self._decode(data)
        except msgspec.DecodeError:
            self._harmless = without_lone_surrogates(data)
            if self._harmless == data:
                raise
            self._shown = bytearray(self._harmless)
            return self._decode(self._shown)

    def _decode(self, text: bytes | bytearray) -> _Members:
        try:
            return _members.decode(text)
        except RecursionError:
            head = closed_above(_HEAD_DEPTH, bytes(text))
            if head is None:
                raise
            self._is_cut = True
            return _members.decode(head)

    def check_size(self, limits: Limits) -> None:
        """Raises TooLarge."""
        size, most = len(self._data), limits.max_message_bytes
        if size > most:
            raise TooLarge(f"the message has {size} bytes; at most {most} are taken")
        if self._is_cut or deeper_than(limits.max_json_depth, self._data):
            raise TooLarge(f"the message nests deeper than {limits.max_json_depth} levels")

    def as_written(self, span: msgspec.Raw) -> bytes:
        """The client's own bytes behind a span.

        A span is a view: it shows what stands in its place. Where lone surrogates were replaced, the original is put
        there for the moment.
        """
        found = copied(span)
        if self._shown is None or HARMLESS not in found:
            return found
        self._shown[:] = self._data
        found = copied(span)
        self._shown[:] = self._harmless
        return found

    def type(self) -> str:
        """One of the types that are known; raises UnknownType for any other, or none."""
        span = self._members.type
        if span is ABSENT:
            raise UnknownType(f"the message has no type: send {_CREATE} or {_CANCEL}")
        found = string_in(span) if type_of(span) is JsonType.STRING else ""
        if found not in _TYPES:
            shown = bytes(memoryview(span)[:64]).decode(errors="replace")
            raise UnknownType(f"unknown type {shown}: send {_CREATE} or {_CANCEL}")
        return found

    def event_id(self, request: Request) -> EventId | None:
        """The first of: the request's, the message's, the first step's that has one. Raises BadField for a bad one."""
        spans = [self._members.event_id, *(step.event_id for step in request.steps if step)]
        if request.whole:
            spans.insert(0, request.whole.event_id)
        for span in spans:
            if type_of(span) is not JsonType.NULL:
                return self._checked_id(span)
        return None

    def _checked_id(self, span: msgspec.Raw) -> EventId:
        found = type_of(span)
        if found is not JsonType.STRING and found is not JsonType.NUMBER:
            raise BadField(f"eventId: expected a string or an integer, got {found}")
        raw = self.as_written(span)
        key = parsing.parse(raw) if len(raw) <= _LONGEST_ID else ""
        if not isinstance(key, str | int):
            raise BadField("eventId: expected a string or an integer, got a fraction")
        if not 0 < len(str(key)) <= MAX_EVENT_ID_CHARS:
            raise BadField(f"eventId: expected 1 to {MAX_EVENT_ID_CHARS} characters")
        return EventId(key, raw)
