"""Realtime sessions: relay WebSocket messages between a client and the provider that the URL names.

`plan` reads the handshake. `session` runs a session: it connects to the provider (`upstream.realtime`), answers the
client after the provider, and starts the `relay`, which passes messages between two `peer`s until one side closes.
`close` decides about close frames, and `accounting` writes the log and the usage. `close` and `plan` are pure.

A provider can be replayed from a tape (`replay.socket_connector`, `replay.socket_player`); sessions are recorded by
`tapes.socket_recorder`.
"""

from bridge.server.realtime.routes import RealtimeRoutes
from bridge.server.realtime.session import RealtimeSession

__all__ = ["RealtimeRoutes", "RealtimeSession"]
