"""Read HTTP/1.1 responses with llhttp, with bounds on what a provider may send around a body. No I/O.

Beyond the standard (RFC 9112) these are accepted: header values that are folded over several lines, lines of a head
that end in LF alone, and spaces after the size of a chunk. Refused are two lengths, a length together with chunks,
transfer codings besides `chunked`, and control characters in headers.
"""

from enum import Enum
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_INTERIM_RESPONSES: Final = 16
"""Per request: 100, 102, 103 and every other status below 200, except 101."""
MAX_HEAD_BYTES: Final = 1 << 20
"""Before a response's body begins, interim responses included."""
HEAD_LINE_BYTES: Final = 65_536
MAX_HEADERS: Final = 128
MAX_SILENT_BYTES: Final = 65_536
"""Bytes in a row between and after chunks, such as trailers."""
SLICE_BYTES: Final = 8192
"""The parser gets the reads of a head in slices of this size; the bounds are checked after each."""

_CONTROLS: Final = bytes(set(range(0x20)) - {ord("\t")}) + b"\x7f"
_OF_INTEREST: Final = {b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"}


class AnswerFault(Enum):
    """Why a response is refused. The values complete the sentence "the provider …"."""

    UNREADABLE = "the answer of {peer} cannot be read as HTTP"
    TOO_LONG = f"{{peer}} sent more than {MAX_INTERIM_RESPONSES} interim responses, or a head that is too long"
    SWITCHED = "the provider switched to another protocol without a request to do so"


class AnswerReader:
    """Reads the responses of one connection, one request at a time.

    `status` and `headers` are valid once `has_head` is true. After a fault, and after `is_complete`, nothing else may
    be fed before `start`.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self.on_body = self._parts.append  # llhttp calls it without a frame of Python
        self._parser: Any = None
        self._is_head_method = False
        self.start("GET")

    def start(self, method: str) -> None:
        """Expect the response to a request."""
        if self._parser is None or self._is_head_method:  # after the answer to HEAD, llhttp waits for a body
            self._parser = _parser(self)
        self._is_head_method = method == "HEAD"
        self._fields = []
        self._interim_responses = self._line_bytes = self._silent_bytes = 0
        self.fault: AnswerFault | None = None
        self.head_bytes = 0
        """Bytes that were fed and are not the end of the head."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_encoding = self.content_type = b""
        self.has_head = False
        self.is_complete = False
        self._has_second_head = self._is_persistent = False
        self.has_excess = False
        """True if anything followed the response in the same read."""
        self.lasts_until_close = False
        """True if the body has no length and ends when the connection is closed."""

    def close(self) -> None:
        """Release the parser, which refers to this object."""
        self._parser = None

    @property
    def keeps_connection(self) -> bool:
        """Return True if the connection can be used again after the complete response."""
        return self._is_persistent and self.fault is None and not self.has_excess

    def feed(self, data: bytes) -> bytes:
        """Parse one read, and return the bytes of the body in it. If it is faulty, those before the fault."""
        try:
            if self.has_head:
                self._feed_body(data)
            else:
                self._feed_head(data)
        except (HttpParserError, HttpParserUpgrade):
            # A second response is no fault of the first one: it stops the parser and spoils the connection.
            if self.fault is None and not self._has_second_head:
                self.fault = AnswerFault.UNREADABLE
        parts = self._parts
        if not parts:
            return b""
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def _feed_head(self, data: bytes) -> None:
        if self._is_head_method:
            self._feed_lines(data)
        elif len(data) <= SLICE_BYTES:
            self._feed_slice(data)
        else:
            for start in range(0, len(data), SLICE_BYTES):
                if self.has_head:
                    self._parser.feed_data(memoryview(data)[start:])
                    return
                self._feed_slice(data[start : start + SLICE_BYTES])

    def _feed_lines(self, data: bytes) -> None:
        """Parse the head that answers HEAD. llhttp expects a body after it, so the head's end has to be exact."""
        for line in data.splitlines(keepends=True):
            if self.has_head:
                self.has_excess = True
                return
            self._feed_slice(line)

    def _feed_slice(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self.has_head:
            return
        self.head_bytes += len(data)
        line_end = data.rfind(b"\n")
        self._line_bytes = len(data) - line_end - 1 if line_end >= 0 else self._line_bytes + len(data)
        if self.head_bytes > MAX_HEAD_BYTES or self._line_bytes > HEAD_LINE_BYTES or len(self._fields) > MAX_HEADERS:
            self._refuse(AnswerFault.TOO_LONG)

    def _feed_body(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._parts:
            self._silent_bytes = 0
            return
        self._silent_bytes += len(data)
        if self._silent_bytes > MAX_SILENT_BYTES and not self.is_complete:
            self._refuse(AnswerFault.UNREADABLE)

    def _refuse(self, fault: AnswerFault) -> None:
        self.fault = fault
        raise HttpParserError

    # Called by llhttp. An exception stops it.

    def on_message_begin(self) -> None:
        self.has_excess = self.is_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.has_excess:
            self._has_second_head = True
            raise HttpParserError
        status = self._parser.get_status_code()
        if status >= 200:
            self._take_head(status)
            return
        self._interim_responses += 1
        if status < 100:
            self._refuse(AnswerFault.UNREADABLE)
        if status == 101:
            self._refuse(AnswerFault.SWITCHED)
        if self._interim_responses > MAX_INTERIM_RESPONSES:
            self._refuse(AnswerFault.TOO_LONG)

    def on_message_complete(self) -> None:
        if self.has_head:
            self._complete()
        else:
            self._fields = []  # of an interim response

    def _take_head(self, status: int) -> None:
        self.status, self.headers, self._fields = status, self._fields, []
        facts: dict[bytes, bytes] = {}
        for name, value in self.headers:
            key = name.lower()
            if key in _OF_INTEREST:
                facts[key] = facts[key] + b", " + value if key in facts else value
        self._check(facts)
        self.content_encoding = facts.get(b"content-encoding", b"")
        self.content_type = facts.get(b"content-type", b"").partition(b",")[0]
        self.lasts_until_close = b"content-length" not in facts and b"transfer-encoding" not in facts
        self.has_head = True
        if self._is_head_method:
            self._complete()

    def _complete(self) -> None:
        self.is_complete = True
        self._is_persistent = self._parser.should_keep_alive()  # llhttp forgets it afterwards

    def _check(self, facts: dict[bytes, bytes]) -> None:
        if facts.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            self._refuse(AnswerFault.UNREADABLE)
        values = b"".join([value for _, value in self.headers])
        if len(values.translate(None, _CONTROLS)) != len(values):
            self._refuse(AnswerFault.UNREADABLE)
        if len(self.headers) > MAX_HEADERS or self._has_long_line():
            self._refuse(AnswerFault.TOO_LONG)

    def _has_long_line(self) -> bool:
        is_possible = self.head_bytes > HEAD_LINE_BYTES - 2 * SLICE_BYTES
        return is_possible and max(len(name) + len(value) for name, value in self.headers) > HEAD_LINE_BYTES


def _parser(reader: AnswerReader) -> Any:
    parser = HttpResponseParser(reader)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
