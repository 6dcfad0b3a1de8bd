"""WebSocket to WebSocket: one session between a client and the provider that its URL names.

`planning` reads the handshake, `session` runs the whole: it dials (`upstream.realtime`), answers the client when the
provider has answered, and has a `conversation`, in which two `pump`s pass messages between two `leg`s until one side
leaves; `ends` says what the other is then told, and `ledger` what the log is. Pure are `ends` and `planning`.

A provider may be played from a tape: `replaying` dials it, `playing` is its end of the session, and `score` knows what
the client has to say. What leaves such a tape stands beside the other recorders, in `upstream.socket_recording`.
"""

from bridge.server.realtime.routes import RealtimeRoutes
from bridge.server.realtime.session import RealtimeSession

__all__ = ["RealtimeRoutes", "RealtimeSession"]
