"""Encode server frames: each is one JSON value in UTF-8 (bridge/docs/protocol.md).

JSON from a provider is never re-encoded: its bytes are placed between a prefix, built once per event, and a brace.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Final

import msgspec
import orjson

from bridge.errors import BridgeError
from bridge.formats import json_parse
from bridge.formats.item import Item, ItemKind
from bridge.formats.json_spans import ABSENT, JsonType, string_in, type_of
from bridge.formats.json_text import is_json
from bridge.formats.long_item import LONG_ITEM_BYTES, LongItem

Json = Mapping[str, object]

_CREATED: Final = b'{"type":"universal.created","metadata":'
_DONE: Final = b'{"type":"universal.done","metadata":'
_ERROR: Final = b'{"type":"universal.error","metadata":'
_STREAM: Final = b'{"type":"universal.stream","metadata":{"eventId":'
_RESPONSE: Final = b',"response":'
_ERROR_NAME: Final = "AiGatewayError"
_TYPE_FIRST: Final = b'{"type":'

_TEXTS: Final = {"application/xml", "application/javascript", "application/x-www-form-urlencoded", "application/yaml"}
_TEXT_ENDS: Final = ("+xml", "+yaml")
_STREAMS: Final = {"text/event-stream", "application/x-ndjson", "application/jsonl"}
"""Content types of streams. A body in one piece with such a type is not a stream, but most likely an error in JSON."""


class _Typed(msgspec.Struct):
    type: msgspec.Raw = ABSENT


_typed = msgspec.json.Decoder(_Typed)


class LongFrame:
    """One frame in parts, which are not joined: copying 64 MiB takes 30 ms."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Frame = bytes | LongFrame


class EventFrames:
    """Encode the frames of one event. `event_id` is raw JSON and echoed unchanged; metadata never holds it."""

    def __init__(self, event_id: bytes, *, compat: bool) -> None:
        self._event_id = orjson.Fragment(event_id)
        self._stream = b"".join((_STREAM, event_id, b"}", _RESPONSE))
        self._failed = _DONE if compat else _ERROR

    def stream_start(self, metadata: Json) -> bytes:
        """Return `universal.created` of a stream, which more frames follow."""
        return b"".join((_CREATED, self._with_id(metadata), b"}"))

    def response(self, metadata: Json, response: bytes, error: Json | None = None) -> list[bytes]:
        """Return `universal.created` with the whole answer, which is the last frame of the event, in parts.

        `response` comes from `response_value`. The parts are not joined here: copying 64 MiB takes 30 ms.
        """
        return [b"".join((_CREATED, self._with_id(metadata), _RESPONSE)), response, _error_field(error) + b"}"]

    def done(self, metadata: Json) -> bytes:
        """Return `universal.done`, which confirms that the stream is complete."""
        return b"".join((_DONE, self._with_id(metadata), b"}"))

    def error(self, metadata: Json, error: Json) -> bytes:
        """Return `universal.error`, or the frame that replaces it for clients written for Cloudflare."""
        return b"".join((self._failed, self._with_id(metadata), _error_field(error), b"}"))

    def items(self, items: Iterable[Item]) -> Sequence[Frame]:
        """Return a `universal.stream` frame for each item except end marks. This is the hot path: one join per item."""
        stream = self._stream
        json_kind = ItemKind.JSON
        return [
            b"".join((stream, item.data, b"}"))
            if item.kind is json_kind and item.event is None and item.id is None and item.parts is None
            else self._named_item(item)
            for item in items
            if item.kind is not ItemKind.DONE
        ]

    def _named_item(self, item: Item) -> Frame:
        ending = _event_and_id(item) + b"}"
        if item.parts is not None:
            return LongFrame([self._stream, *item.parts, ending])
        return b"".join((self._stream, _ENCODERS[item.kind](item.data), ending))

    def run(self, body: bytes) -> bytes:
        """Return `universal.stream` with a part of the provider's unparsed body (`frames: raw`)."""
        return b"".join((self._stream, _raw_value(body), b"}"))

    def _with_id(self, metadata: Json) -> bytes:
        return orjson.dumps({"eventId": self._event_id, **metadata})


def heartbeat(events: Iterable[tuple[bytes, str, str]]) -> bytes:
    """Return `universal.heartbeat` with the events in flight: raw eventId, phase and step of each."""
    listed = [{"eventId": orjson.Fragment(raw), "phase": phase, "step": step} for raw, phase, step in events]
    return orjson.dumps({"type": "universal.heartbeat", "events": listed})


def refusal(error: BridgeError, message_index: int, event_id: bytes | None) -> bytes:
    """Return `universal.error` for a message that belongs to no event."""
    fields: dict[str, object] = error_object(error) | {"messageIndex": message_index}
    if event_id is not None:
        fields["eventId"] = orjson.Fragment(event_id)
    return orjson.dumps({"type": "universal.error", "metadata": {"success": False}, "error": fields})


def error_object(error: BridgeError) -> dict[str, object]:
    """Return the member `error` of an event's last frame."""
    fields: dict[str, object] = {
        "code": error.code,
        "message": str(error),
        "source": error.source,
        "retryable": error.retryable,
    }
    if error.retry_after_ms is not None:
        fields["retryAfterMs"] = error.retry_after_ms
    return fields


def error_body(error: BridgeError) -> bytes:
    """Return the bridge's error body for frames and the universal endpoint, in Cloudflare's shape."""
    return orjson.dumps(_error_members(error, [{"code": error.code, "message": str(error)}]))


def sdk_error_body(error: BridgeError) -> bytes:
    """Return the bridge's error body for SDKs, which show the message of an `error` that is an object."""
    return orjson.dumps(_error_members(error, _sdk_error(error.code, str(error))))


def as_sdk_error_body(body: bytes) -> bytes:
    """Convert a body made by `error_body` into the shape of `sdk_error_body`; return any other body unchanged."""
    try:
        members = orjson.loads(body)
        return orjson.dumps({**members, "error": _sdk_error(members["internalCode"], members["message"])})
    except (ValueError, TypeError, KeyError):
        return body


def _error_members(error: BridgeError, shown: object) -> Json:
    return {
        "success": False,
        "result": [],
        "messages": [],
        "error": shown,
        "name": _ERROR_NAME,
        "httpCode": error.status,
        "internalCode": error.code,
        "message": str(error),
    }


def _sdk_error(code: int, message: str) -> Json:
    return {"message": message, "type": _ERROR_NAME, "code": code}


def response_value(body: bytes, content_type: str, *, raw: bool = False, checked: bool = False) -> bytes:
    """Return the member `response` for a body in one piece: JSON as it is, text as a string, other bytes as base64.

    `content_type` is the bare media type in lower case. If it is empty, the body itself decides. With `raw` (`frames:
    raw`) a body that is not JSON is encoded like a part of a raw stream, with its encoding: then the exact bytes of
    strings, empty bodies and invalid UTF-8 can be restored.
    `checked` means that the body is known to be JSON.
    """
    means_json = content_type == "application/json" or content_type.endswith("+json")
    if body and (means_json or not content_type or content_type in _STREAMS) and (checked or is_json(body)):
        return body
    if raw:
        return _raw_value(body)
    if not body:
        return b"null"
    if means_json:
        return _malformed(body)
    if _means_text(content_type) or (not content_type and _is_utf8(body)):
        return _text(body)
    return _base64(body)


def _means_text(content_type: str) -> bool:
    return content_type.startswith("text/") or content_type in _TEXTS | _STREAMS or content_type.endswith(_TEXT_ENDS)


def _is_utf8(body: bytes) -> bool:
    try:
        return bool(body.decode())
    except UnicodeDecodeError:
        return False


def _event_and_id(item: Item) -> bytes:
    """Return the members `event` (unless it equals the `type` of the data) and `id` of a frame."""
    out = b""
    if item.event is not None and not _is_own_type(item):
        out = b',"event":' + orjson.dumps(item.event)
    if item.id is not None:
        out += b',"id":' + orjson.dumps(item.id)
    return out


def _is_own_type(item: Item) -> bool:
    """Return True if the event equals the `type` of the data, which is usually its first member."""
    if item.kind is not ItemKind.JSON:
        return False
    if item.data.startswith(_TYPE_FIRST + orjson.dumps(item.event)):
        return True
    try:
        return _type_in(item.data) == item.event
    except RecursionError:  # the reader was higher on the stack and succeeded
        return False


def _type_in(data: bytes) -> object:
    try:
        found = _typed.decode(data).type
        return string_in(found) if type_of(found) is JsonType.STRING else None
    except msgspec.ValidationError:  # not an object
        return None
    except msgspec.DecodeError:  # lone surrogates
        value = None if json_parse.has_many_parts(data) else json_parse.parse(data)
        return value.get("type") if isinstance(value, dict) else None


def _raw_value(body: bytes) -> bytes:
    try:
        return orjson.dumps(body.decode()) + b',"encoding":"text"'
    except UnicodeDecodeError:
        return _base64(body)


def _text(data: bytes) -> bytes:
    if len(data) > LONG_ITEM_BYTES:
        return _in_parts(data, ItemKind.TEXT)
    try:
        return orjson.dumps(data.decode())
    except UnicodeDecodeError:
        return _malformed(data)


def _malformed(data: bytes) -> bytes:
    if len(data) > LONG_ITEM_BYTES:
        return _in_parts(data, ItemKind.MALFORMED)
    return orjson.dumps(data.decode(errors="replace")) + b',"malformed":true'


def _base64(data: bytes) -> bytes:
    if len(data) > LONG_ITEM_BYTES:
        return _in_parts(data, ItemKind.BYTES)
    return b'"' + base64.b64encode(data) + b'","encoding":"base64"'


def _in_parts(data: bytes, kind: ItemKind) -> bytes:
    """Encode long data part by part, so that other threads can run in between."""
    item = LongItem(lambda _: kind)
    for start in range(0, len(data), LONG_ITEM_BYTES):
        item.feed(data[start : start + LONG_ITEM_BYTES])
    encoded = BytesIO()
    encoded.writelines(part for part in item.item().parts or ())
    return encoded.getvalue()


_ENCODERS: Final[Mapping[ItemKind, Callable[[bytes], bytes]]] = {
    ItemKind.JSON: bytes,
    ItemKind.TEXT: _text,
    ItemKind.BYTES: _base64,
    ItemKind.MALFORMED: _malformed,
}
"""Functions that encode the data of an item as JSON, with the members that the client needs to decode it."""


def _error_field(error: Json | None) -> bytes:
    return b',"error":' + orjson.dumps(error) if error is not None else b""
