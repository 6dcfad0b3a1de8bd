"""One HTTP request as one event: its body read, its steps run, its answer given."""

import asyncio
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, ClientError, Draining, OutOfMemoryBudget, TooLarge
from bridge.http_errors import BodyTooSlow, error_body_for
from bridge.http_reply import Reply
from bridge.http_voice import HttpVoice
from bridge.relay.arrivals import Arrivals
from bridge.relay.budget import Budget, Hold
from bridge.relay.decoding import decoded
from bridge.relay.event import Shared
from bridge.relay.event_relay import OFF_LOOP_BYTES, EventRelay
from bridge.relay.plan import Ground
from bridge.settings.server import ServerSettings
from bridge.websocket import LONG_BYTES
from bridge.wire.messages import Create, Refused

Ask = Callable[[bytes], Create | Refused]
"""What a body asks for, with all that is known of the request but that. Pure: it may run in a thread."""

_LEAST_BYTES: Final = 16_384
"""What must come of a body in the time that a silent client is waited for, if that is not all of it."""


class HttpEvent:
    """`run` once, in the request's own task."""

    def __init__(
        self,
        request: web.Request,
        ground: Ground,
        server: ServerSettings,
        shared: Shared,
        memory: Budget,
        arrivals: Arrivals,
        more_headers: Mapping[str, str],
    ) -> None:
        """`more_headers` go out with the answer, whichever it is."""
        self._request = request
        self._ground = ground
        self._server = server
        self._shared = shared
        self._more_headers = more_headers
        self._arrivals = arrivals
        self._hold = Hold(Budget(server.max_buffered_bytes, "this request", memory))
        self._reply = Reply(request, server.slow_client_timeout / 1000)
        self._relay: EventRelay | None = None
        self._patience: asyncio.Timeout | None = None
        """While more of the body is waited for."""
        self._refused: OutOfMemoryBudget | None = None

    async def run(self, ask: Ask, *, reads_body: bool = False) -> web.StreamResponse:
        """`reads_body`: the body is for the bridge, so its content coding is undone."""
        try:
            relay, asked = await self._begin(ask, reads_body=reads_body)
            if isinstance(asked, Refused):
                relay.refuse(asked.error)
            else:
                await relay.run()
        except ConnectionError:
            pass  # the client left before it had asked for anything
        finally:
            self._hold.drop()
        return self._reply.release()

    def drain(self) -> None:
        self._reply.leave()

    def end_events(self) -> None:
        if self._relay is not None:
            self._relay.cancel(Draining("the bridge is shutting down"))
        else:
            self._reply.abort()  # while its body is still on the way

    def recheck(self) -> None:
        """Also while its body is on the way: then it is seen when its steps are planned."""
        try:
            self._ground.live()
        except ClientError as error:
            if self._relay is not None:
                self._relay.cancel(error)

    async def _begin(self, ask: Ask, *, reads_body: bool) -> tuple[EventRelay, Create | Refused]:
        """Raises ConnectionError."""
        try:
            body = await self._body()
            if reads_body:
                body = await self._decoded(body)
            asked = await self._asked(ask, body)
        except BridgeError as error:
            self._reply.leave()  # for nobody knows where the next request would begin
            asked = Refused(error.bare(), None, owned=True)
        create = asked if isinstance(asked, Create) else asked.create
        name = create.event_id
        body_of = error_body_for(self._request)
        voice = HttpVoice(self._reply, str(name.key) if name else None, self._more_headers, body_of)
        raw = name.raw if name else None
        self._relay = EventRelay(create, raw, self._ground, self._shared, voice, self._hold, _nothing)
        self._reply.on_cancel(self._relay.cancel)
        return self._relay, asked

    async def _asked(self, ask: Ask, body: bytes) -> Create | Refused:
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
                self._reply.invite()
            return await self._rest(BytesIO())
        except web.RequestPayloadError as error:
            raise BadMessage(f"the body is framed wrongly: {error}") from None
        finally:
            self._arrivals.end(self)

    async def _decoded(self, body: bytes) -> bytes:
        """Raises BadMessage, TooLarge, OutOfMemoryBudget."""
        coding = ", ".join(self._request.headers.getall("Content-Encoding", ()))
        plain = await decoded(body, coding, self._hold, self._server.max_message_bytes)
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
        if self._hold.size + len(data) <= LONG_BYTES:
            self._hold.add(len(data))
            return data
        self._arrivals.begin(self, self._refuse_body)
        self._arrivals.add(self, self._hold, len(data))
        self._check_refused()
        return data

    def _check_refused(self) -> None:
        if self._refused is not None:
            raise self._refused.bare()

    def _refuse_body(self, error: OutOfMemoryBudget) -> None:
        self._refused = error
        self._hold.drop()
        if self._patience is not None and self._patience.when() is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    def _check_length(self, size: int) -> None:
        most = self._server.max_message_bytes
        if size > most:
            raise TooLarge(f"the body has more than {most} bytes; no longer one is taken")


def _nothing() -> None: ...
