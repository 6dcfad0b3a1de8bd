"""The options that a WebSocket handshake at a gateway sets for its session."""

from dataclasses import dataclass

from aiohttp import web

from bridge.relay.plan import RequestContext
from bridge.server.auth import heartbeat_s, is_compat
from bridge.settings.overrides import from_headers
from bridge.settings.step import StepSettings


@dataclass(frozen=True, slots=True)
class HandshakeOptions:
    """Options of one session."""

    context: RequestContext
    settings: StepSettings
    """The gateway's settings, overridden by those of the handshake."""
    compat: bool
    heartbeat_s: float | None
    warnings: tuple[str, ...] = ()
    """Warnings about clamped settings; they are repeated in every event."""


def read_options(request: web.Request, context: RequestContext) -> HandshakeOptions:
    """Read the options from the handshake's headers and query. Raises BadField."""
    gateway = context.gateway_at_connect
    headers = {name.lower(): value for name, value in request.headers.items()}
    warnings: list[str] = []
    settings = from_headers(gateway.settings, headers, "handshake", warnings)
    return HandshakeOptions(
        context, settings, is_compat(request.query, gateway), heartbeat_s(request.query), tuple(warnings)
    )
