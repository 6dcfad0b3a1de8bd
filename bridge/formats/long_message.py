"""Read a message of an AWS event stream of more than 256 KiB while it arrives."""

import binascii
import re
import zlib
from typing import Final

from bridge.errors import BrokenStream
from bridge.formats.buffer import is_complete, kind_of
from bridge.formats.item import Item, ItemKind
from bridge.formats.long_item import LongItem

_CRC_BYTES: Final = 4
_MAX_REST_BYTES: Final = 65_536
"""Bound on the members behind the content of a Bedrock chunk, which is its padding."""
_CHUNK: Final = re.compile(rb'\s{0,64}+\{\s{0,64}+"bytes"\s{0,64}+:\s{0,64}+"')


class LongMessage:
    """A message whose payload is processed as it arrives: its CRC, its base64 if it is a Bedrock chunk, its content."""

    def __init__(
        self, beginning: bytes, payload_at: int, length: int, kind: ItemKind | None, *, is_chunk: bool
    ) -> None:
        """Create a message of `length` bytes from its `beginning`, which includes the headers and the first payload.

        `kind` is that of the content, None if the content decides. `is_chunk`: the content may be base64 inside JSON.
        """
        self._crc = zlib.crc32(beginning[:payload_at])
        self._payload_bytes = length - payload_at - _CRC_BYTES
        self._end = b""
        content = LongItem(kind_of if kind is None else lambda _: kind)
        found = _CHUNK.match(beginning, payload_at) if is_chunk else None
        self._content = content if found is None else _ChunkContent(content, found[0])
        self.size = payload_at
        self._length = length
        rest = self.add(beginning[payload_at:])
        assert not rest

    @property
    def is_complete(self) -> bool:
        return self.size == self._length

    def add(self, data: bytes) -> bytes:
        """Add data; return what follows the message. Raise BrokenStream if the message is damaged."""
        payload, end = data[: self._payload_bytes], data[self._payload_bytes :]
        self._payload_bytes -= len(payload)
        self._crc = zlib.crc32(payload, self._crc)
        self._content.feed(payload)
        missing = _CRC_BYTES - len(self._end)
        self._end += end[:missing]
        self.size += len(payload) + len(end[:missing])
        return end[missing:]

    def item(self, event: str | None) -> Item:
        """Return the item of the complete message. Raise BrokenStream if its CRC or its base64 is wrong."""
        if self._crc != int.from_bytes(self._end):
            raise BrokenStream("a message of the AWS event stream is damaged: its CRC does not match")
        return self._content.item(event)


class _ChunkContent:
    """The content of `{"bytes":"BASE64", …}`."""

    def __init__(self, content: LongItem, opening: bytes) -> None:
        self._content = content
        self._opening_bytes = len(opening)
        self._encoded = b""
        self._is_padded = self._is_over = False
        self._rest = b""

    def feed(self, payload: bytes) -> None:
        """Decode as much as consists of whole groups of four characters. Raise BrokenStream if that is impossible."""
        payload = payload[self._opening_bytes :]
        self._opening_bytes = 0
        if not self._is_over:
            encoded, quote, payload = payload.partition(b'"')
            self._is_over = bool(quote)
            self._decode(self._encoded + encoded)
        self._rest += payload
        if len(self._rest) > _MAX_REST_BYTES:
            raise BrokenStream("a long chunk of the AWS event stream has more than its content and padding")

    def item(self, event: str | None) -> Item:
        is_whole = self._is_over and not self._encoded
        if not is_whole or not is_complete(b'{"bytes":""' + self._rest):
            raise BrokenStream("a long chunk of the AWS event stream is not JSON with base64")
        return self._content.item(event)

    def _decode(self, encoded: bytes) -> None:
        end = len(encoded) - len(encoded) % 4
        self._encoded = encoded[end:]
        if not end:
            return
        try:
            if self._is_padded:
                raise binascii.Error("data after the padding")
            self._content.feed(binascii.a2b_base64(encoded[:end], strict_mode=True))
        except binascii.Error:
            raise BrokenStream("a long chunk of the AWS event stream is not valid base64") from None
        self._is_padded = encoded[end - 1] == ord("=")
