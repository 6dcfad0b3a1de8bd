"""Run one realtime session, from the client's handshake to the close of both connections."""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from bridge.errors import BadMessage, BridgeError, Cancelled, ClientError, Draining, InternalError, NoAnswerInTime
from bridge.protocol.headers import check_size
from bridge.protocol.response_headers import for_handshake
from bridge.providers import select_subprotocol
from bridge.relay.context import Runtime
from bridge.relay.memory import MemoryBudget, MemoryReservation
from bridge.relay.plan import RequestContext
from bridge.relay.summary import SessionTotals
from bridge.server.callbacks import ignore
from bridge.server.http.connection import connection_of
from bridge.server.realtime import close as closing
from bridge.server.realtime.accounting import SessionAccounting
from bridge.server.realtime.close import CloseFrame, SessionEnd
from bridge.server.realtime.peer import ClientPeer, provider_peer
from bridge.server.realtime.plan import PlannedSession, RealtimeRequest, plan
from bridge.server.realtime.relay import MessageRelay
from bridge.server.websocket import set_subprotocol
from bridge.settings.server import ServerSettings
from bridge.settings.step import StepSettings
from bridge.upstream.http import Call
from bridge.upstream.realtime import ConnectorProtocol, HandshakeRefused, ProviderSocket


@dataclass(frozen=True, slots=True)
class RealtimeRuntime:
    """Objects that a realtime session shares with the others of its process, and the settings at its begin."""

    server: ServerSettings
    runtime: Runtime
    connector: ConnectorProtocol
    memory: MemoryBudget


class RealtimeSession:
    """One session, which owns both connections. Call `run` once."""

    def __init__(
        self,
        request: web.Request,
        realtime_request: RealtimeRequest,
        context: RequestContext,
        settings: StepSettings,
        runtime: RealtimeRuntime,
        warnings: list[str],
    ) -> None:
        """`settings` are the gateway's settings, overridden by those of the handshake."""
        self._request = request
        self._realtime_request = realtime_request
        self._context = context
        self._settings = settings
        self._runtime = runtime
        self._budget = MemoryBudget(runtime.server.max_buffered_bytes, "this session", runtime.memory)
        self._accounting = SessionAccounting(
            context, runtime.runtime.services, realtime_request.headers.get("cf-aig-event-id"), warnings
        )
        self._opening: asyncio.Timeout | None = None
        self._drain_end: BridgeError | None = None
        self._relay: MessageRelay | None = None
        self._totals: SessionTotals | None = None
        self.provider, self.phase = "", "starting"

    async def run(self) -> web.StreamResponse:
        """Run the session to its end; return the response to the handshake.

        If the session cannot open, raises BadMessage for an invalid handshake, NoAnswerInTime, Draining, Cancelled if
        the client has left, and what `plan`, the limiter and `Connector.open` raise.
        """
        error: BridgeError | None = InternalError("the session's task was cancelled, or failed")
        running = self._runtime.runtime.running
        running.add(self)
        try:
            socket = await self._open()
            try:
                response = await self._answer(socket)
                error = await self._run_relay(response, socket)
            finally:
                await socket.close()  # the connection is closed already; this releases aiohttp's objects
        except BridgeError as refused:
            error = refused.without_traceback()
            raise
        finally:
            running.discard(self)
            self._accounting.close(error, self._totals)
        return response

    def drain(self) -> None:
        """Refuse the session if it is not open yet; an open one may continue."""
        self._abort_opening(Draining("the bridge is shutting down; connect again"))

    def end_events(self) -> None:
        if self._relay is not None:
            self._relay.end(closing.drained())

    def revalidate(self) -> None:
        """Close, if the token or the gateway was removed."""
        try:
            self._context.current_gateway()
        except ClientError as error:
            self._abort_opening(error.without_traceback())
            if self._relay is not None:
                self._relay.end(closing.revoked(error))

    def _abort_opening(self, error: BridgeError) -> None:
        """Stop opening the session with this error, unless the provider has answered."""
        self._drain_end = self._drain_end or error
        if self._opening is not None:
            self._opening.reschedule(0)

    def on_disconnect(self) -> None:
        """Stop opening the session: the client has left."""
        self._abort_opening(Cancelled("the client left before the provider had answered"))

    def on_writable(self) -> None:
        """Do nothing: no output is queued before the handshake is answered."""

    async def _open(self) -> ProviderSocket:
        """Connect to the provider and return its socket. The client's handshake is checked first and answered last."""
        server = self._runtime.server
        check_size(self._realtime_request.headers, server.max_headers, server.max_header_bytes, "handshake")
        _check(self._response(None), self._request)
        planned = plan(self._realtime_request, self._context, self._settings)
        connection = connection_of(self._request)
        connection.listener = self
        try:
            async with asyncio.timeout(0 if self._drain_end else None) as self._opening:
                self.phase = "waiting"
                await self._accounting.admit(planned.step, self._settings)
                return await self._connect(planned)
        except TimeoutError:
            assert self._drain_end is not None
            raise self._drain_end from None
        finally:
            self._opening = connection.listener = None

    async def _connect(self, planned: PlannedSession) -> ProviderSocket:
        slug = planned.step.provider.slug
        self.provider, self.phase = slug, "connecting"
        limit_ms = self._runtime.server.realtime_handshake_timeout
        if self._settings.request_timeout:
            limit_ms = min(limit_ms, self._settings.request_timeout)
        try:
            async with asyncio.timeout(limit_ms / 1000):
                call = await self._accounting.authorize(_call(planned))
                return await self._runtime.connector.open(
                    call, planned.protocols, self._runtime.server.max_message_bytes
                )
        except HandshakeRefused as refusal:
            refusal.conceal(self._accounting.known_secrets)
            raise
        except TimeoutError:
            raise NoAnswerInTime(f"{slug} did not answer the WebSocket handshake within {limit_ms} ms") from None

    def _response(self, picked: str | None) -> "web.WebSocketResponse[bool]":
        subprotocol = select_subprotocol(self._realtime_request.offered, picked)
        response = web.WebSocketResponse(
            autoclose=False,
            autoping=False,
            compress=False,
            decode_text=False,
            max_msg_size=self._runtime.server.max_message_bytes + 1,  # aiohttp accepts smaller messages only
            protocols=(subprotocol,) if subprotocol else (),
        )
        set_subprotocol(response, subprotocol)
        return response

    async def _answer(self, socket: ProviderSocket) -> "web.WebSocketResponse[bool]":
        response = self._response(socket.protocol)
        response.headers.update(for_handshake(self._accounting.public_headers(socket).items()))
        try:
            if self._drain_end is not None:  # it was set after the provider had answered
                raise self._drain_end
            connection_of(self._request).upgrade_to(response, self._runtime.server.max_message_bytes + 1)
            await response.prepare(self._request)
            if self._request.transport is None:
                raise ConnectionResetError("the client disconnected during the handshake")
        except BaseException as exc:
            await provider_peer(socket, MemoryReservation(self._budget)).close(
                CloseFrame(closing.GOING_AWAY), answers=False
            )
            if isinstance(exc, ConnectionError):
                raise Cancelled("the client left before the provider had answered") from None
            raise
        return response

    async def _run_relay(self, response: "web.WebSocketResponse[bool]", socket: ProviderSocket) -> BridgeError | None:
        up, down = MemoryReservation(self._budget), MemoryReservation(self._budget)
        client, provider = ClientPeer(self._request, response, up), provider_peer(socket, down)
        provider.known_secrets = self._accounting.known_secrets
        relay = MessageRelay(
            client, provider, self._runtime.server, self._accounting.count_sent, self._accounting.count_received
        )
        self._relay, self.phase = relay, "talking"
        self.revalidate()  # the token may have been revoked during the handshake
        try:
            end = await relay.run()
        finally:
            up.release_all()
            down.release_all()
        self._totals = _totals_of(relay, end)
        return end.error


def _check(response: "web.WebSocketResponse[bool]", request: web.Request) -> None:
    """Check the handshake as aiohttp does, before the provider is called. Raises BadMessage."""
    try:
        can = response.can_prepare(request).ok
    except ValueError:
        can = False
    if not can:
        raise BadMessage("invalid WebSocket handshake: check Sec-WebSocket-Key and Sec-WebSocket-Version")


def _call(planned: PlannedSession) -> Call:
    step = planned.step
    headers = list(step.step.provider_headers.items())
    return Call("GET", step.target, headers, b"", on_connected=ignore)


def _totals_of(relay: MessageRelay, end: SessionEnd) -> SessionTotals:
    up, down = relay.up, relay.down
    return SessionTotals(up.messages, down.messages, up.bytes, down.bytes, end.by or "bridge", end.code)
