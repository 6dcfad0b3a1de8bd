"""Typed frames of the bridge, with their metadata and the provider's bytes. Pure.

The names are those of the protocol in snake case: `metadata.durationMs` is `metadata.duration_ms`.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bridge.errors import Source
from bridge.formats.json_parse import parse
from bridge.formats.json_spans import ABSENT
from bridge.formats.json_text import replace_lone_surrogates
from bridge.formats.usage import Usage

__all__ = ["Attempt", "EventId", "Failure", "Frame", "Metadata", "Usage"]

EventId = str | int

_PREFIX: Final = "universal."


class Failure(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The reason why an event failed."""

    code: int
    """Error code of the bridge (bridge/docs/errors.md), or the HTTP status of a provider's error."""
    message: str = ""
    source: Source = "bridge"
    retryable: bool = False
    """True if the same request may succeed later."""
    retry_after_ms: int | None = None
    event_id: EventId | None = None
    """Set only for a message that belongs to no event, like the next field."""
    message_index: int | None = None
    """Index of the message on the socket, counted from 0."""


class Attempt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One attempt of one step."""

    step: str
    provider: str | None = None
    status: int | None = None
    code: int | None = None
    duration_ms: int = 0
    reason: str | None = None
    """Reason why it was not the answer; None for the attempt that was."""


class Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Metadata of an event. The first frame identifies the provider; the last frame is complete."""

    event_id: EventId | None = None
    cache_status: str | None = None
    log_id: str | None = None
    """ID of the event in the bridge's log."""
    step: str | None = None
    """Index of the step that answered."""
    provider: str | None = None
    content_type: str | None = None
    status: int | None = None
    """HTTP status of the provider's answer, or of the bridge's error."""
    success: bool | None = None
    headers: Mapping[str, str] | None = None
    """Response headers of the provider in lower case; None for the bridge's own answers."""
    restarted: bool = False
    attempts: tuple[Attempt, ...] = ()
    """All attempts, if there was more than one."""
    duration_ms: int | None = None
    chunks: int | None = None
    """Number of frames of the stream."""
    usage: Usage | None = None
    cost: float | None = None
    """US dollars, if the provider reports them."""
    warnings: tuple[str, ...] = ()


class _FrameMembers(msgspec.Struct, frozen=True):
    wire_type: str = msgspec.field(name="type")
    metadata: Metadata = Metadata()
    error: Failure | None = None
    """Set in the last frame of a failed event."""
    event: str | None = None
    """Value of an `event:` line, if the item itself does not contain it."""
    id: str | None = None
    """Value of an `id:` line."""
    encoding: str | None = None
    """Encoding of the string in `response`: `base64` or `text`."""
    malformed: bool = False
    """The response is text that should have been JSON, or UTF-8."""
    span: msgspec.Raw = msgspec.field(name="response", default=ABSENT)


_members = msgspec.json.Decoder(_FrameMembers)
_spans = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_NAME: Final = re.compile(rb'[ \t\n\r]*+[{,][ \t\n\r]*+"(?:[^"\\]|\\.)*+"[ \t\n\r]*+:')


class Frame(_FrameMembers, frozen=True, kw_only=True):
    """One message of the bridge. `raw` is the message as received: JSON in UTF-8."""

    raw: bytes
    is_altered: bool = False
    """`span` has placeholders for the lone surrogates in `raw`, which msgspec does not accept."""

    @classmethod
    def of(cls, raw: bytes) -> "Frame":
        """Parse a frame. Raises ValueError for other messages, RecursionError for excessive nesting."""
        try:
            return cls(*msgspec.structs.astuple(_members.decode(raw)), raw=raw)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            harmless = replace_lone_surrogates(raw)
            return cls(*msgspec.structs.astuple(_members.decode(harmless)), raw=raw, is_altered=True)

    @property
    def type(self) -> str:
        """Return the type without `universal.`: created, stream, done, error or heartbeat."""
        return self.wire_type.removeprefix(_PREFIX)

    @property
    def has_response(self) -> bool:
        return self.span is not ABSENT

    @property
    def is_last(self) -> bool:
        return self.type in {"done", "error"} or (self.type == "created" and self.has_response)

    @property
    def response(self) -> Any:
        """Return the JSON value, parsed at each access; None without a response."""
        if not self.has_response:
            return None
        return parse(self.raw)["response"] if self.is_altered else parse(bytes(self.span))

    @property
    def content(self) -> Any:
        """Return the response; bytes for audio, video and other binary content."""
        return base64.b64decode(self.response) if self.encoding == "base64" else self.response

    @property
    def body(self) -> bytes:
        """Return the provider's bytes in the frame; they are exact with `frames: raw`."""
        match self.encoding:
            case "base64":
                return base64.b64decode(self.response)
            case "text":
                return str(self.response).encode()
            case _:
                return _as_written("response", self.raw)


def _as_written(name: str, text: bytes) -> bytes:
    """Return the value of a member with the white space around it, which a raw frame preserves."""
    at = 0
    for member, value in _spans.decode(replace_lone_surrogates(text)).items():
        at = _past(_NAME, text, at)
        end = _past(_SPACE, text, _past(_SPACE, text, at) + len(memoryview(value)))
        if member == name:
            return text[at:end]
        at = end
    return b""


def _past(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None, "the JSON object has been decoded before"
    return found.end()
