"""Handle one HTTP request as one event: read its body, run its steps, write its response."""

import asyncio
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, ClientError, Draining, OutOfMemoryBudget, TooLarge
from bridge.protocol.messages import Create, RejectedMessage
from bridge.relay.arrivals import LONG_BYTES
from bridge.relay.decoding import decoded
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.runner import OFF_LOOP_BYTES, EventRunner
from bridge.server.callbacks import ignore
from bridge.server.http.errors import BodyTooSlow, error_body_for
from bridge.server.http.response import HttpResponse
from bridge.server.http.writer import HttpResponseWriter
from bridge.server.state import ServerState

ParseBody = Callable[[bytes], Create | RejectedMessage]
"""Parses the body into an event; the other parts of the request are bound. Pure: it may run in a thread."""

_MIN_BODY_BYTES: Final = 16_384
"""Number of body bytes that must arrive within `peer_timeout`, unless the body ends."""


class HttpHandler:
    """Handles one request. Call `run` once, in the request's own task."""

    def __init__(
        self,
        request: web.Request,
        context: RequestContext,
        state: ServerState,
        more_headers: Mapping[str, str],
    ) -> None:
        """`more_headers` are added to every response."""
        server = state.settings
        self._request = request
        self._context = context
        self._server = server
        self._runtime = state.runtime
        self._more_headers = more_headers
        self._arrivals = state.arrivals
        self._reservation = MemoryReservation(MemoryBudget(server.max_buffered_bytes, "this request", state.memory))
        self._response = HttpResponse(request, server.slow_client_timeout / 1000)
        self._runner: EventRunner | None = None
        self._body_timeout: asyncio.Timeout | None = None
        """The timeout of the current wait for more of the body."""
        self._refused: OutOfMemoryBudget | None = None

    async def run(self, parse: ParseBody, *, reads_body: bool = False) -> web.StreamResponse:
        """Run the event. `reads_body` is True if the bridge reads the body itself and so has to decode it."""
        try:
            runner, message = await self._begin(parse, reads_body=reads_body)
            if isinstance(message, RejectedMessage):
                runner.refuse(message.error)
            else:
                await runner.run()
        except ConnectionError:
            pass  # the client closed the connection before its request was complete
        finally:
            self._reservation.release_all()
        return self._response.detach()

    def drain(self) -> None:
        self._response.disable_keep_alive()

    def end_events(self) -> None:
        if self._runner is not None:
            self._runner.cancel(Draining("the bridge is shutting down"))
        else:
            self._response.abort()  # the body is still being received

    def revalidate(self) -> None:
        """Cancel the event if it is no longer authorized. Before the event begins, planning its steps checks this."""
        try:
            self._context.current_gateway()
        except ClientError as error:
            if self._runner is not None:
                self._runner.cancel(error)

    async def _begin(self, parse: ParseBody, *, reads_body: bool) -> tuple[EventRunner, Create | RejectedMessage]:
        """Read the body and make the event's runner. Raises ConnectionError."""
        try:
            body = await self._body()
            if reads_body:
                body = await self._decoded(body)
            message = await self._parsed(parse, body)
        except BridgeError as error:
            self._response.disable_keep_alive()  # the start of the next request is unknown
            message = RejectedMessage(error.without_traceback(), None, owned=True)
        create = message if isinstance(message, Create) else message.create
        event_id = create.event_id
        key, raw = (str(event_id.key), event_id.raw) if event_id else (None, None)
        writer = HttpResponseWriter(self._response, key, self._more_headers, error_body_for(self._request))
        self._runner = EventRunner(create, raw, self._context, self._runtime, writer, self._reservation, ignore)
        self._response.on_cancel(self._runner.cancel)
        return self._runner, message

    async def _parsed(self, parse: ParseBody, body: bytes) -> Create | RejectedMessage:
        if len(body) < OFF_LOOP_BYTES:
            return parse(body)
        async with self._arrivals.reading:
            return await asyncio.to_thread(parse, body)

    async def _body(self) -> bytes:
        """Return the whole body, counted in the request's memory.

        Raises TooLarge, OutOfMemoryBudget, BodyTooSlow, BadMessage for invalid framing, ConnectionError.
        """
        content = self._request.content
        self._check_length(self._request.content_length or 0)
        try:
            if content.is_eof():
                return self._counted(content.read_nowait())
            if self._request.headers.get("Expect", "").lower() == "100-continue":
                self._response.send_continue()
            return await self._rest(BytesIO())
        except web.RequestPayloadError as error:
            raise BadMessage(f"invalid framing of the body: {error}") from None
        finally:
            self._arrivals.end(self)

    async def _decoded(self, body: bytes) -> bytes:
        """Undo the content coding of the body. Raises BadMessage, TooLarge, OutOfMemoryBudget."""
        coding = ", ".join(self._request.headers.getall("Content-Encoding", ()))
        plain = await decoded(body, coding, self._reservation, self._server.max_message_bytes)
        return body if plain is None else plain

    async def _rest(self, body: BytesIO) -> bytes:
        content = self._request.content
        while not content.at_eof():
            before = body.tell()
            try:
                async with asyncio.timeout(self._server.peer_timeout / 1000) as self._body_timeout:
                    while not content.at_eof() and body.tell() < before + _MIN_BODY_BYTES:
                        body.write(self._counted(await content.readany()))
            except TimeoutError:
                self._check_refused()
                raise BodyTooSlow("the body of the request arrives too slowly") from None
            self._check_length(body.tell())
        self._check_refused()
        return body.getvalue()

    def _counted(self, data: bytes) -> bytes:
        self._check_length(len(data))
        self._check_refused()
        if self._reservation.size + len(data) <= LONG_BYTES:
            self._reservation.add(len(data))
            return data
        self._arrivals.begin(self, self._refuse_body)
        self._arrivals.add(self, self._reservation, len(data))
        self._check_refused()
        return data

    def _check_refused(self) -> None:
        if self._refused is not None:
            raise self._refused.without_traceback()

    def _refuse_body(self, error: OutOfMemoryBudget) -> None:
        self._refused = error
        self._reservation.release_all()
        waiting = self._body_timeout
        if waiting is not None and waiting.when() is not None and not waiting.expired():
            waiting.reschedule(asyncio.get_running_loop().time())

    def _check_length(self, size: int) -> None:
        max_bytes = self._server.max_message_bytes
        if size > max_bytes:
            raise TooLarge(f"the body has more than {max_bytes} bytes (max_message_bytes)")
