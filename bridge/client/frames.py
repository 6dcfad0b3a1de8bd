"""What the bridge says, typed: frames, what they tell of their event, and the provider's bytes in them. Pure.

The names are the wire's own, in Python's spelling: `metadata.durationMs` is `metadata.duration_ms`.
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
    """Why an event failed."""

    code: int
    """The bridge's own (README, "Error codes"), or the HTTP status of a provider's error."""
    message: str = ""
    source: Source = "bridge"
    retryable: bool = False
    """Whether the same request may succeed later."""
    retry_after_ms: int | None = None
    event_id: EventId | None = None
    """Only of a message that could own no event, as is the next."""
    message_index: int | None = None
    """Which of the socket's messages it was, counted from 0."""


class Attempt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One try of one step."""

    step: str
    provider: str | None = None
    status: int | None = None
    code: int | None = None
    duration_ms: int = 0
    reason: str | None = None
    """Why it was not the answer; None for the one that was."""


class Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is known of an event. A first frame tells who answers; the last frame tells all."""

    event_id: EventId | None = None
    cache_status: str | None = None
    log_id: str | None = None
    """The event's name in the bridge's log."""
    step: str | None = None
    """The index of the step that answered."""
    provider: str | None = None
    content_type: str | None = None
    status: int | None = None
    """The HTTP status of the provider's answer, or of the bridge's own error."""
    success: bool | None = None
    headers: Mapping[str, str] | None = None
    """The provider's response headers, lower case; None where the bridge itself answers."""
    restarted: bool = False
    attempts: tuple[Attempt, ...] = ()
    """When there was more than one."""
    duration_ms: int | None = None
    chunks: int | None = None
    """How many frames the stream had."""
    usage: Usage | None = None
    cost: float | None = None
    """US dollars, where the provider tells it."""
    warnings: tuple[str, ...] = ()


class _FrameMembers(msgspec.Struct, frozen=True):
    wire_type: str = msgspec.field(name="type")
    metadata: Metadata = Metadata()
    error: Failure | None = None
    """In the last frame of an event that failed."""
    event: str | None = None
    """The value of an `event:` line, where the item itself does not hold it."""
    id: str | None = None
    """The value of an `id:` line."""
    encoding: str | None = None
    """`base64` or `text`: what the string in `response` stands for."""
    malformed: bool = False
    """The response is the text of what should have been JSON, or UTF-8."""
    span: msgspec.Raw = msgspec.field(name="response", default=ABSENT)


_members = msgspec.json.Decoder(_FrameMembers)
_spans = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_NAME: Final = re.compile(rb'[ \t\n\r]*+[{,][ \t\n\r]*+"(?:[^"\\]|\\.)*+"[ \t\n\r]*+:')


class Frame(_FrameMembers, frozen=True, kw_only=True):
    """One message of the bridge. `raw` is the message as it came: JSON in UTF-8."""

    raw: bytes
    is_altered: bool = False
    """`span` holds placeholders where `raw` has lone surrogates, which is the one thing msgspec does not take."""

    @classmethod
    def of(cls, raw: bytes) -> "Frame":
        """Raises ValueError when it is no frame of a bridge, RecursionError for what nests too deep."""
        try:
            return cls(*msgspec.structs.astuple(_members.decode(raw)), raw=raw)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            harmless = replace_lone_surrogates(raw)
            return cls(*msgspec.structs.astuple(_members.decode(harmless)), raw=raw, is_altered=True)

    @property
    def type(self) -> str:
        """Without `universal.`: created, stream, done, error, heartbeat."""
        return self.wire_type.removeprefix(_PREFIX)

    @property
    def has_response(self) -> bool:
        return self.span is not ABSENT

    @property
    def is_last(self) -> bool:
        return self.type in {"done", "error"} or (self.type == "created" and self.has_response)

    @property
    def response(self) -> Any:
        """A JSON value, parsed anew each time; None when there is none."""
        if not self.has_response:
            return None
        return parse(self.raw)["response"] if self.is_altered else parse(bytes(self.span))

    @property
    def content(self) -> Any:
        """The response, and bytes where it holds such: audio, video, whatever is no text."""
        return base64.b64decode(self.response) if self.encoding == "base64" else self.response

    @property
    def body(self) -> bytes:
        """The provider's bytes that the frame carries; exactly these with `frames: raw`."""
        match self.encoding:
            case "base64":
                return base64.b64decode(self.response)
            case "text":
                return str(self.response).encode()
            case _:
                return _as_written("response", self.raw)


def _as_written(name: str, text: bytes) -> bytes:
    """The value of a member of a JSON object with the white space around it, which the sender may have spliced in."""
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
    assert found is not None, "a JSON object that was read once already"
    return found.end()
