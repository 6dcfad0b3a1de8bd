"""Parse and check client messages: `universal.create` and `universal.cancel`.

See bridge/docs/protocol.md, "Request". `parse` never raises for client input: an invalid message becomes a
`RejectedMessage` with the error and, if it can be read, the event id.
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
    """Start an event. `event_id` is None if the client sent none; `warnings` name clamped and unknown settings."""

    event_id: EventId | None
    steps: list[ProviderStep]
    warnings: list[str]
    defaults: StepSettings | None = None
    """Settings of the event if no step could be read; None if they could not be read either."""

    @property
    def settings(self) -> StepSettings | None:
        """Return the settings of the event, which are those of its first step."""
        return self.steps[0].settings if self.steps else self.defaults


class Cancel(msgspec.Struct, frozen=True):
    """Cancel an event in flight."""

    event_id: EventId


class RejectedMessage(msgspec.Struct, frozen=True):
    """An invalid message.

    If `owned` is true, the error is sent as the last frame of an event (the bridge generates an id if the client sent
    none). Otherwise it concerns the message only.
    """

    error: BridgeError
    event_id: EventId | None
    owned: bool
    defaults: StepSettings | None = None
    """Settings of the event, as far as they could be read."""

    @property
    def create(self) -> Create:
        """Return the event that the message would have started, without steps."""
        return Create(self.event_id, [], [], self.defaults)


def parse(data: bytes, defaults: StepSettings, limits: MessageLimits) -> Create | Cancel | RejectedMessage:
    """Parse one message. `defaults` are the settings of the gateway, overridden by those of the handshake."""
    event_id = None
    owned = False
    try:
        message = JsonDocument(data, _members.decode, "the message is not a JSON object")
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
        return RejectedMessage(TooLarge("the message nests too deep"), event_id, owned, defaults)


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
    """Return the message type. Raise UnknownType if it is missing or unknown."""
    if span is ABSENT:
        raise UnknownType(f"the message has no type: send {_CREATE} or {_CANCEL}")
    found = string_in(span) if type_of(span) is JsonType.STRING else ""
    if found not in _TYPES:
        shown = bytes(memoryview(span)[:64]).decode(errors="replace")
        raise UnknownType(f"unknown type {shown}: send {_CREATE} or {_CANCEL}")
    return found
