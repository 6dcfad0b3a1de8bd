"""Decode `application/vnd.amazon.eventstream`, the streaming format of AWS Bedrock.

A message is big-endian: u32 length, u32 length of the headers, u32 CRC of these eight bytes, headers, payload, u32 CRC
of everything before. Source: "Amazon Event Stream Specification", smithy.io.
"""

import struct
import zlib

import msgspec
import orjson

from bridge.errors import BrokenStream
from bridge.formats.buffer import PendingBuffer, kind_of
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LONG_ITEM_BYTES
from bridge.formats.long_message import LongMessage

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_SIZE = struct.Struct(">H")
_FRAMING_BYTES = _PRELUDE.size + _CRC.size
_MAX_HEADERS_BYTES = 131_072
"""The maximum that the specification sets."""

# Header values by type: true, false, byte, short, int, long, timestamp, uuid have fixed sizes; bytes and string do not.
_FIXED_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7

_EVENT = "event"
_CHUNK = "chunk"
_NAMED_BY = {_EVENT: ":event-type", "exception": ":exception-type", "error": ":error-code"}


class EventStreamDecoder:
    """Return one item per message: its payload, or for Bedrock's `chunk` the JSON inside.

    `max_item_bytes` includes the framing, and is checked as soon as the length is known. Raise BrokenStream if a CRC or
    a length is wrong: the next message cannot be found then. A chunk of more than 256 KiB must begin with its member
    `bytes`, in valid base64.
    """

    def __init__(self, max_item_bytes: int) -> None:
        self._pending = PendingBuffer(max_item_bytes)
        self._needed = _PRELUDE.size
        self._long: LongMessage | None = None
        self._long_headers: dict[str, str] = {}
        self.truncated = False

    @property
    def pending_bytes(self) -> int:
        return len(self._pending) if self._long is None else self._long.size

    def feed(self, data: bytes) -> list[Item]:
        if self._long is not None:
            return self._feed_long(self._long, data)
        if len(self._pending) + len(data) < self._needed:
            self._pending.add(data)
            if len(self._pending) > LONG_ITEM_BYTES:
                self._begin_long()
            return []
        received = self._pending.take(data)
        items = []
        at = 0
        while (end := at + self._length(received, at)) <= len(received):
            items.append(_item(received[at:end]))
            at = end
        self._needed = end - at
        self._pending.add(received[at:])
        return items

    def finish(self) -> list[Item]:
        self.truncated = self.pending_bytes > 0
        return []

    def _begin_long(self) -> None:
        beginning = self._pending.take()
        _, headers_length, _ = _PRELUDE.unpack_from(beginning)
        payload_at = _PRELUDE.size + headers_length
        headers = self._long_headers = _headers(beginning[_PRELUDE.size : payload_at])
        _, name = _type_and_name(headers)
        kind = ItemKind.BYTES if _is_binary(headers) else None
        self._long = LongMessage(beginning, payload_at, self._needed, kind, is_chunk=name == _CHUNK)

    def _feed_long(self, message: LongMessage, data: bytes) -> list[Item]:
        rest = message.add(data)
        if not message.is_complete:
            return []
        self._long, self._needed = None, _PRELUDE.size
        message_type, name = _type_and_name(self._long_headers)
        item = message.item(name)
        item.exception = message_type != _EVENT
        return [item, *self.feed(rest)]

    def _length(self, received: bytes, at: int) -> int:
        """Return the length of the message at `at`, or of its prelude while that is incomplete."""
        if len(received) - at < _PRELUDE.size:
            return _PRELUDE.size
        length, headers_length, crc = _PRELUDE.unpack_from(received, at)
        _check_crc(received[at : at + 8], crc)
        if headers_length > length - _FRAMING_BYTES:
            raise BrokenStream("a message of the AWS event stream is shorter than its parts")
        if headers_length > _MAX_HEADERS_BYTES:
            raise BrokenStream(f"the headers of an AWS event stream message are longer than {_MAX_HEADERS_BYTES} bytes")
        self._pending.check(length)
        return int(length)


class _BedrockChunk(msgspec.Struct):
    inner: bytes = msgspec.field(name="bytes")


_chunk = msgspec.json.Decoder(_BedrockChunk)


def _item(message: bytes) -> Item:
    _check_crc(message[: -_CRC.size], *_CRC.unpack(message[-_CRC.size :]))
    _, headers_length, _ = _PRELUDE.unpack_from(message)
    payload_at = _PRELUDE.size + headers_length
    headers = _headers(message[_PRELUDE.size : payload_at])
    payload = message[payload_at : -_CRC.size]
    message_type, name = _type_and_name(headers)
    data = _data(name, payload) or _error_data(headers)
    kind = ItemKind.BYTES if _is_binary(headers) else kind_of(data)
    return Item(data, kind, name, exception=message_type != _EVENT)


def _type_and_name(headers: dict[str, str]) -> tuple[str, str | None]:
    message_type = headers.get(":message-type", _EVENT)
    return message_type, headers.get(_NAMED_BY.get(message_type, ""))


def _is_binary(headers: dict[str, str]) -> bool:
    return headers.get(":content-type") == "application/octet-stream"


def _data(name: str | None, payload: bytes) -> bytes:
    """Return the content of the payload. InvokeModelWithResponseStream wraps the model's JSON in base64."""
    if name != _CHUNK:
        return payload
    try:
        return _chunk.decode(payload).inner
    except msgspec.DecodeError:
        return payload


def _error_data(headers: dict[str, str]) -> bytes:
    """Return the text of an `error` message, which has no payload, in the shape of an exception's payload."""
    text = headers.get(":error-message")
    return b"" if text is None else orjson.dumps({"message": text})


def _headers(raw: bytes) -> dict[str, str]:
    """Return the headers whose value is a string. Raise BrokenStream if they do not fill `raw` exactly."""
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(raw):
            name_end = at + 1 + raw[at]
            type_, start, end = _value(raw, name_end)
            if type_ == _STRING:
                headers[raw[at + 1 : name_end].decode()] = raw[start:end].decode()
            at = end
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise BrokenStream("the headers of an AWS event stream message cannot be read") from error
    if at != len(raw):
        raise BrokenStream("a header of an AWS event stream message is longer than the headers")
    return headers


def _value(raw: bytes, at: int) -> tuple[int, int, int]:
    """Return type, start and end of the value whose type is at `at`."""
    type_ = raw[at]
    start = at + 1
    if type_ in (_BYTES, _STRING):
        (size,) = _SIZE.unpack_from(raw, start)
        start += _SIZE.size
    else:
        size = _FIXED_SIZES[type_]
    return type_, start, start + size


def _check_crc(covered: bytes, crc: int) -> None:
    if zlib.crc32(covered) != crc:
        raise BrokenStream("a message of the AWS event stream is damaged: its CRC does not match")
