"""Parse the JSON of a client message once, and give access to the client's own bytes of every span."""

from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from bridge.errors import BadMessage, TooLarge
from bridge.formats.json_text import (
    REPLACEMENT,
    check_utf8,
    copy_span,
    deeper_than,
    replace_lone_surrogates,
    truncated_at_depth,
)
from bridge.protocol.steps import MessageLimits

T = TypeVar("T")

_HEAD_DEPTH: Final = 8
"""Depth up to which a text that nests too deep is read, to find its type and eventId."""


class JsonDocument(Generic[T]):
    """A parsed JSON text. `value` is the result of `decode`, with spans in it.

    Raise BadMessage, which begins with the text `wanted`, if the text is invalid; RecursionError if it nests too deep
    even for its head.
    """

    def __init__(self, data: bytes, decode: Callable[[bytes | bytearray], T], wanted: str) -> None:
        data = data.removeprefix(BOM_UTF8)  # a parser may ignore it: RFC 8259, section 8.1
        self._data = data
        self._decode_all = decode
        self._replaced = b""
        self._buffer: bytearray | None = None
        self._is_cut = False
        try:
            self.value = self._read(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(f"{wanted}: {error}") from None

    def _read(self, data: bytes) -> T:
        check_utf8(data)  # msgspec does not check the members that it skips
        try:
            return self._decode(data)
        except msgspec.DecodeError:
            self._replaced = replace_lone_surrogates(data)
            if self._replaced == data:
                raise
            self._buffer = bytearray(self._replaced)
            return self._decode(self._buffer)

    def _decode(self, text: bytes | bytearray) -> T:
        try:
            return self._decode_all(text)
        except RecursionError:
            head = truncated_at_depth(_HEAD_DEPTH, bytes(text))
            if head is None:
                raise
            self._is_cut = True
            return self._decode_all(head)

    def check_size(self, limits: MessageLimits) -> None:
        """Raise TooLarge if the message is longer or nests deeper than the limits allow."""
        size, limit = len(self._data), limits.max_message_bytes
        if size > limit:
            raise TooLarge(f"the message has {size} bytes; at most {limit} are allowed")
        if self._is_cut or deeper_than(limits.max_json_depth, self._data):
            raise TooLarge(f"the message nests deeper than {limits.max_json_depth} levels")

    def source_bytes(self, span: msgspec.Raw) -> bytes:
        """Return the client's own bytes of a span.

        A span is a view of the buffer that was parsed. If lone surrogates were replaced there, the original bytes are
        copied into that buffer for the moment.
        """
        found = copy_span(span)
        if self._buffer is None or REPLACEMENT not in found:
            return found
        self._buffer[:] = self._data
        found = copy_span(span)
        self._buffer[:] = self._replaced
        return found
