"""aiohttp's protocol for realtime handshakes, with bounds on what a provider may send before and beside its answer.

aiohttp reads any number of interim responses (RFC 9110, section 15.2) for one request, parses each read in one call,
and keeps every response that it did not ask for. A provider must not be able to stop the loop, or to fill the memory,
with those.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from bridge.upstream.answer_reader import MAX_HEAD_BYTES, MAX_INTERIM_RESPONSES, SLICE_BYTES

if TYPE_CHECKING:  # a type that aiohttp does not export
    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader


class AnswerHeadError(aiohttp.ClientError):
    """The provider sent too many interim responses, or too much before the answer's body."""


class AnswerProtocol(ResponseHandler):
    """Closes the connection at the first slice that exceeds a bound."""

    _interim_responses = 0
    _head_bytes = 0
    _has_answer_head = False
    _is_refused = False

    def set_response_params(self, **params: Any) -> None:
        """A new request begins on this connection."""
        self._interim_responses = self._head_bytes = 0
        self._has_answer_head = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE_BYTES or self._payload_parser is not None:  # it is a WebSocket by now
            self._receive(data)
            return
        for start in range(0, len(data), SLICE_BYTES):
            if self._is_refused:
                return
            self._receive(data[start : start + SLICE_BYTES])

    def feed_data(self, data: "tuple[RawResponseMessage, StreamReader]", size: int = 0) -> None:
        """Called by aiohttp with each response whose head is complete."""
        if self._is_refused:
            return
        if self._has_answer_head:
            self._refuse(None)  # a second answer was not requested
            return
        status = data[0].code
        if 100 <= status < 200 and status != 101:
            self._interim_responses += 1
            if self._interim_responses > MAX_INTERIM_RESPONSES:
                self._refuse(AnswerHeadError())
                return
        else:
            self._has_answer_head = True
        super().feed_data(data, size)

    def _receive(self, data: bytes) -> None:
        super().data_received(data)
        if not self._has_answer_head and self._parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(AnswerHeadError())

    def _refuse(self, error: AnswerHeadError | None) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        if error is not None:
            self.set_exception(error)
        self.force_close()
        if self.transport is not None:
            self.transport.abort()


def bound_answers(connector: aiohttp.BaseConnector) -> None:
    """Make every new connection of `connector` an AnswerProtocol. aiohttp has no public way to choose the protocol."""
    factory = partial(AnswerProtocol, loop=connector._loop)
    connector._factory = cast("partial[ResponseHandler]", factory)
