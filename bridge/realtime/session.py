"""One client and one provider, each on a WebSocket, from the client's handshake to both goodbyes."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, Cancelled, ClientError, Draining, InternalError, NoAnswerInTime
from bridge.http_connection import connection_of
from bridge.providers import echoed
from bridge.realtime import ends
from bridge.realtime.conversation import Conversation
from bridge.realtime.ends import Close, End
from bridge.realtime.ledger import Ledger
from bridge.realtime.leg import ClientLeg, provider_leg
from bridge.realtime.planning import Asked, Planned, plan
from bridge.relay import entry
from bridge.relay.budget import Budget, Hold
from bridge.relay.event import Shared
from bridge.relay.plan import Ground
from bridge.settings.server import ServerSettings
from bridge.settings.step import StepSettings
from bridge.upstream.http import Call
from bridge.upstream.realtime import Dials, ProviderSocket, Refused
from bridge.websocket import echo
from bridge.wire.answer_headers import for_handshake
from bridge.wire.headers import check_size


@dataclass(frozen=True, slots=True)
class House:
    """What a realtime session shares with the others of its process, and the settings when it began."""

    server: ServerSettings
    shared: Shared
    dialler: Dials
    memory: Budget


class RealtimeSession:
    """`run` once. Whoever runs it owns it; it owns both connections."""

    def __init__(
        self,
        request: web.Request,
        asked: Asked,
        ground: Ground,
        settings: StepSettings,
        house: House,
        warnings: list[str],
    ) -> None:
        """`settings` are the gateway's with the handshake's laid over them."""
        self._request = request
        self._asked = asked
        self._ground = ground
        self._settings = settings
        self._house = house
        self._budget = Budget(house.server.max_buffered_bytes, "this session", house.memory)
        self._ledger = Ledger(ground, house.shared.services, asked.headers.get("cf-aig-event-id"), warnings)
        self._opening: asyncio.Timeout | None = None
        self._sent_away: BridgeError | None = None
        self._conversation: Conversation | None = None
        self._told: entry.Conversation | None = None
        self.provider, self.phase = "", "starting"

    async def run(self) -> web.StreamResponse:
        """What the client was answered with, when all is over.

        Raises, in place of an answer to the handshake: BadMessage for one that is none, what `plan`, the gate and
        `Dialler.open` raise, NoAnswerInTime, Draining, Cancelled when the client has left.
        """
        error: BridgeError | None = InternalError("the session's task was cancelled, or failed")
        running = self._house.shared.running
        running.add(self)
        try:
            socket = await self._open()
            try:
                response = await self._answer(socket)
                error = await self._converse(response, socket)
            finally:
                await socket.close()  # of which nothing is left but aiohttp's books
        except BridgeError as refused:
            error = refused.bare()
            raise
        finally:
            running.discard(self)
            self._ledger.close(error, self._told)
        return response

    def drain(self) -> None:
        """Who talks may go on; who waits for the provider is sent away."""
        self._send_away(Draining("the bridge is shutting down; connect again"))

    def end_events(self) -> None:
        if self._conversation is not None:
            self._conversation.end(ends.drained())

    def recheck(self) -> None:
        """Leave, if the token or the gateway is gone."""
        try:
            self._ground.live()
        except ClientError as error:
            self._send_away(error.bare())
            if self._conversation is not None:
                self._conversation.end(ends.revoked(error))

    def _send_away(self, error: BridgeError) -> None:
        """Unless the provider has answered."""
        self._sent_away = self._sent_away or error
        if self._opening is not None:
            self._opening.reschedule(0)

    def on_gone(self) -> None:
        """The client has left."""
        self._send_away(Cancelled("the client left before the provider had answered"))

    def on_room(self) -> None:
        """Nothing is said to the client before its handshake is answered."""

    async def _open(self) -> ProviderSocket:
        """The provider's socket. The client's handshake is looked at first, and answered last."""
        server = self._house.server
        check_size(self._asked.headers, server.max_headers, server.max_header_bytes, "handshake")
        _check(self._response(None), self._request)
        planned = plan(self._asked, self._ground, self._settings)
        connection = connection_of(self._request)
        connection.listener = self
        try:
            async with asyncio.timeout(0 if self._sent_away else None) as self._opening:
                self.phase = "waiting"
                await self._ledger.admit(planned.step, self._settings)
                return await self._dial(planned)
        except TimeoutError:
            assert self._sent_away is not None
            raise self._sent_away from None
        finally:
            self._opening = connection.listener = None

    async def _dial(self, planned: Planned) -> ProviderSocket:
        slug = planned.step.provider.slug
        self.provider, self.phase = slug, "connecting"
        limit_ms = self._house.server.realtime_handshake_timeout
        if self._settings.request_timeout:
            limit_ms = min(limit_ms, self._settings.request_timeout)
        try:
            async with asyncio.timeout(limit_ms / 1000):
                call = await self._ledger.authorised(_call(planned))
                return await self._house.dialler.open(call, planned.protocols, self._house.server.max_message_bytes)
        except Refused as refusal:
            refusal.conceal(self._ledger.known)
            raise
        except TimeoutError:
            raise NoAnswerInTime(f"{slug} did not answer the WebSocket handshake within {limit_ms} ms") from None

    def _response(self, picked: str | None) -> "web.WebSocketResponse[bool]":
        one = echoed(self._asked.offered, picked)
        response = web.WebSocketResponse(
            autoclose=False,
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=self._house.server.max_message_bytes + 1,  # aiohttp takes what is less
            protocols=(one,) if one else (),
        )
        echo(response, one)
        return response

    async def _answer(self, socket: ProviderSocket) -> "web.WebSocketResponse[bool]":
        response = self._response(socket.protocol)
        response.headers.update(for_handshake(self._ledger.public_headers(socket).items()))
        try:
            if self._sent_away is not None:  # after the provider had answered, and before this was known here
                raise self._sent_away
            connection_of(self._request).becomes(response, self._house.server.max_message_bytes + 1)
            await response.prepare(self._request)
            if self._request.transport is None:
                raise ConnectionResetError("it went while it was answered")
        except BaseException as exc:
            await provider_leg(socket, Hold(self._budget)).part(Close(ends.GOING_AWAY), answers=False)
            if isinstance(exc, ConnectionError):
                raise Cancelled("the client left before the provider had answered") from None
            raise
        return response

    async def _converse(self, response: "web.WebSocketResponse[bool]", socket: ProviderSocket) -> BridgeError | None:
        up, down = Hold(self._budget), Hold(self._budget)
        client, provider = ClientLeg(self._request, response, up), provider_leg(socket, down)
        provider.known = self._ledger.known
        conversation = Conversation(client, provider, self._house.server, self._ledger.said, self._ledger.heard)
        self._conversation, self.phase = conversation, "talking"
        self.recheck()  # what was revoked while the client was answered
        try:
            end = await conversation.run()
        finally:
            up.drop()
            down.drop()
        self._told = _told(conversation, end)
        return end.error


def _check(response: "web.WebSocketResponse[bool]", request: web.Request) -> None:
    """Raises BadMessage for what aiohttp would refuse once the provider was called."""
    try:
        can = response.can_prepare(request).ok
    except ValueError:
        can = False
    if not can:
        raise BadMessage("the handshake is none: its Sec-WebSocket-Key or its Sec-WebSocket-Version is wrong")


def _call(planned: Planned) -> Call:
    step = planned.step
    headers = list(step.step.provider_headers.items())
    return Call("GET", step.target, headers, b"", on_connected=_nothing)


def _told(conversation: Conversation, end: End) -> entry.Conversation:
    up, down = conversation.up, conversation.down
    return entry.Conversation(up.messages, down.messages, up.bytes, down.bytes, end.by or "bridge", end.code)


def _nothing() -> None: ...
