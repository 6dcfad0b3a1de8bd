"""What a client may say: `universal.create` and `universal.cancel`, parsed and checked (PROTOCOL.md, A "Request").

`parse` never raises for what a client wrote: a message that cannot be taken becomes a `Refused` that names its fault
and, when one can be read, its event.
"""

from typing import Final

import msgspec

from bridge.errors import BadField, BridgeError, TooLarge, UnknownType
from bridge.formats.json_spans import ABSENT, JsonType, string_in, type_of
from bridge.protocol.event_id import EventId, first_event_id
from bridge.protocol.json_document import JsonDocument
from bridge.protocol.steps import MessageLimits, ProviderStep, RawRequest, StepReader
from bridge.settings.step import StepSettings

__all__ = ["Cancel", "Create", "EventId", "MessageLimits", "ProviderStep", "RejectedMessage", "parse"]

_CREATE: Final = "universal.create"
_CANCEL: Final = "universal.cancel"
_TYPES: Final = (_CREATE, _CANCEL)


class Create(msgspec.Struct, frozen=True):
    """Start an event. `event_id` is None when the client gave none; `warnings` tell of clamped settings."""

    event_id: EventId | None
    steps: list[ProviderStep]
    warnings: list[str]
    defaults: StepSettings | None = None
    """Where no step could be read: what was to hold for all of them. None where that could not be read either."""

    @property
    def settings(self) -> StepSettings | None:
        """What holds for the event as a whole: the first step's."""
        return self.steps[0].settings if self.steps else self.defaults


class Cancel(msgspec.Struct, frozen=True):
    """Stop an event."""

    event_id: EventId


class RejectedMessage(msgspec.Struct, frozen=True):
    """A message that cannot be taken.

    An `owned` fault is the ordinary last frame of an event (which gets an id made for it when the client gave none);
    any other belongs to the message alone.
    """

    error: BridgeError
    event_id: EventId | None
    owned: bool
    defaults: StepSettings | None = None
    """What was to hold for the event, as far as it could be read."""

    @property
    def create(self) -> Create:
        """The event that it would have been: without steps."""
        return Create(self.event_id, [], [], self.defaults)


def parse(data: bytes, defaults: StepSettings, limits: MessageLimits) -> Create | Cancel | RejectedMessage:
    """Read one message. `defaults` are the gateway's settings, with the handshake's laid over them."""
    event_id = None
    owned = False
    try:
        message = JsonDocument(data, _members.decode, "the message is no JSON object")
        request = RawRequest(message.value.request, limits.max_steps)
        spans = (request.event_id, message.value.event_id, *request.step_event_ids)
        event_id = first_event_id(spans, message.source_bytes)
        if _type_in(message.value.type) == _CANCEL:
            return _cancel(event_id)
        owned = True
        message.check_size(limits)
        reader = StepReader(message.source_bytes, limits)
        return Create(event_id, reader.read(request, defaults), reader.warnings)
    except BridgeError as error:
        return RejectedMessage(error.without_traceback(), event_id, owned, defaults)
    except RecursionError:
        return RejectedMessage(TooLarge("the message nests too deep to be read"), event_id, owned, defaults)


def _cancel(event_id: EventId | None) -> Cancel:
    if event_id is None:
        raise BadField("eventId: missing; universal.cancel names the event to stop")
    return Cancel(event_id)


class _MessageMembers(msgspec.Struct, rename="camel", gc=False):
    type: msgspec.Raw = ABSENT
    event_id: msgspec.Raw = ABSENT
    request: msgspec.Raw = ABSENT


_members = msgspec.json.Decoder(_MessageMembers)


def _type_in(span: msgspec.Raw) -> str:
    """One of the types that are known; raises UnknownType for any other, or none."""
    if span is ABSENT:
        raise UnknownType(f"the message has no type: send {_CREATE} or {_CANCEL}")
    found = string_in(span) if type_of(span) is JsonType.STRING else ""
    if found not in _TYPES:
        shown = bytes(memoryview(span)[:64]).decode(errors="replace")
        raise UnknownType(f"unknown type {shown}: send {_CREATE} or {_CANCEL}")
    return found
