"""JSON that a client wrote: read once, with its own bytes at hand behind every span of it."""

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
"""How deep a text that nests too deep to be read is looked into for what it is and its eventId."""


class JsonDocument(Generic[T]):
    """`value` is what `decode` makes of the text, with spans in it.

    Raises BadMessage, in the words of `wanted`, for what is none; RecursionError for what nests too deep even for that.
    """

    def __init__(self, data: bytes, decode: Callable[[bytes | bytearray], T], wanted: str) -> None:
        data = data.removeprefix(BOM_UTF8)  # a parser may ignore it: RFC 8259, section 8.1
        self._data = data
        self._decode_all = decode
        self._harmless = b""
        self._shown: bytearray | None = None
        self._is_cut = False
        try:
            self.value = self._read(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadMessage(f"{wanted}: {error}") from None

    def _read(self, data: bytes) -> T:
        check_utf8(data)  # msgspec does not look at what it skips
        try:
            return self._decode(data)
        except msgspec.DecodeError:
            self._harmless = replace_lone_surrogates(data)
            if self._harmless == data:
                raise
            self._shown = bytearray(self._harmless)
            return self._decode(self._shown)

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
        """Raises TooLarge."""
        size, most = len(self._data), limits.max_message_bytes
        if size > most:
            raise TooLarge(f"the message has {size} bytes; at most {most} are taken")
        if self._is_cut or deeper_than(limits.max_json_depth, self._data):
            raise TooLarge(f"the message nests deeper than {limits.max_json_depth} levels")

    def source_bytes(self, span: msgspec.Raw) -> bytes:
        """The client's own bytes behind a span.

        A span is a view: it shows what stands in its place. Where lone surrogates were replaced, the original is put
        there for the moment.
        """
        found = copy_span(span)
        if self._shown is None or REPLACEMENT not in found:
            return found
        self._shown[:] = self._data
        found = copy_span(span)
        self._shown[:] = self._harmless
        return found
