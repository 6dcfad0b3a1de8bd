"""One HTTP request as one event: its body read, its steps run, its answer given."""

import asyncio
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, ClientError, Draining, OutOfMemoryBudget, TooLarge
from bridge.protocol.messages import Create, RejectedMessage
from bridge.relay.arrivals import LONG_BYTES, Arrivals
from bridge.relay.context import Runtime
from bridge.relay.decoding import decoded
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.runner import OFF_LOOP_BYTES, EventRunner
from bridge.server.http.errors import BodyTooSlow, error_body_for
from bridge.server.http.response import HttpResponse
from bridge.server.http.writer import HttpResponseWriter
from bridge.settings.server import ServerSettings

Ask = Callable[[bytes], Create | RejectedMessage]
"""What a body asks for, with all that is known of the request but that. Pure: it may run in a thread."""

_LEAST_BYTES: Final = 16_384
"""What must come of a body in the time that a silent client is waited for, if that is not all of it."""


class HttpHandler:
    """`run` once, in the request's own task."""

    def __init__(
        self,
        request: web.Request,
        context: RequestContext,
        server: ServerSettings,
        runtime: Runtime,
        memory: MemoryBudget,
        arrivals: Arrivals,
        more_headers: Mapping[str, str],
    ) -> None:
        """`more_headers` go out with the answer, whichever it is."""
        self._request = request
        self._context = context
        self._server = server
        self._runtime = runtime
        self._more_headers = more_headers
        self._arrivals = arrivals
        self._reservation = MemoryReservation(MemoryBudget(server.max_buffered_bytes, "this request", memory))
        self._response = HttpResponse(request, server.slow_client_timeout / 1000)
        self._runner: EventRunner | None = None
        self._patience: asyncio.Timeout | None = None
        """While more of the body is waited for."""
        self._refused: OutOfMemoryBudget | None = None

    async def run(self, ask: Ask, *, reads_body: bool = False) -> web.StreamResponse:
        """`reads_body`: the body is for the bridge, so its content coding is undone."""
        try:
            relay, asked = await self._begin(ask, reads_body=reads_body)
            if isinstance(asked, RejectedMessage):
                relay.refuse(asked.error)
            else:
                await relay.run()
        except ConnectionError:
            pass  # the client left before it had asked for anything
        finally:
            self._reservation.release_all()
        return self._response.detach()

    def drain(self) -> None:
        self._response.disable_keep_alive()

    def end_events(self) -> None:
        if self._runner is not None:
            self._runner.cancel(Draining("the bridge is shutting down"))
        else:
            self._response.abort()  # while its body is still on the way

    def revalidate(self) -> None:
        """Also while its body is on the way: then it is seen when its steps are planned."""
        try:
            self._context.current_gateway()
        except ClientError as error:
            if self._runner is not None:
                self._runner.cancel(error)

    async def _begin(self, ask: Ask, *, reads_body: bool) -> tuple[EventRunner, Create | RejectedMessage]:
        """Raises ConnectionError."""
        try:
            body = await self._body()
            if reads_body:
                body = await self._decoded(body)
            asked = await self._asked(ask, body)
        except BridgeError as error:
            self._response.disable_keep_alive()  # for nobody knows where the next request would begin
            asked = RejectedMessage(error.without_traceback(), None, owned=True)
        create = asked if isinstance(asked, Create) else asked.create
        name = create.event_id
        body_of = error_body_for(self._request)
        writer = HttpResponseWriter(self._response, str(name.key) if name else None, self._more_headers, body_of)
        raw = name.raw if name else None
        self._runner = EventRunner(create, raw, self._context, self._runtime, writer, self._reservation, _nothing)
        self._response.on_cancel(self._runner.cancel)
        return self._runner, asked

    async def _asked(self, ask: Ask, body: bytes) -> Create | RejectedMessage:
        if len(body) < OFF_LOOP_BYTES:
            return ask(body)
        async with self._arrivals.reading:
            return await asyncio.to_thread(ask, body)

    async def _body(self) -> bytes:
        """All of it, counted in the event's hold.

        Raises TooLarge, OutOfMemoryBudget, BodyTooSlow, BadMessage for wrong framing, ConnectionError.
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
            raise BadMessage(f"the body is framed wrongly: {error}") from None
        finally:
            self._arrivals.end(self)

    async def _decoded(self, body: bytes) -> bytes:
        """Raises BadMessage, TooLarge, OutOfMemoryBudget."""
        coding = ", ".join(self._request.headers.getall("Content-Encoding", ()))
        plain = await decoded(body, coding, self._reservation, self._server.max_message_bytes)
        return body if plain is None else plain

    async def _rest(self, body: BytesIO) -> bytes:
        content = self._request.content
        while not content.at_eof():
            before = body.tell()
            try:
                async with asyncio.timeout(self._server.peer_timeout / 1000) as self._patience:
                    while not content.at_eof() and body.tell() < before + _LEAST_BYTES:
                        body.write(self._counted(await content.readany()))
            except TimeoutError:
                self._check_refused()
                raise BodyTooSlow("the request's body does not come on") from None
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
        if self._patience is not None and self._patience.when() is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    def _check_length(self, size: int) -> None:
        most = self._server.max_message_bytes
        if size > most:
            raise TooLarge(f"the body has more than {most} bytes; no longer one is taken")


def _nothing() -> None: ...
