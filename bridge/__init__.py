"""Universal Bridge: a self-hosted WebSocket gateway to every AI provider.

Five words. A *session* is one client's socket. An *event* is one request on it, named by its `eventId`. A *chain* is
the event's list of steps, and decides what to try next. A *step* is one provider call. A *relay* runs one event from
its first message to its last frame.

The way of one message: `server` upgrades and authenticates; `session` parses a message (`wire.messages`) and starts a
task for it; `relay` asks the chain (`policy.chain`) what to try, and lets an `attempt` try it (`upstream.http`); a
`passage` passes the stream on, read by read, through a decoder (`wire.body`), a reader that knows what items mean
(`wire.dialects`) and the encoder of frames (`wire.frames`).

Imports point down only: cli → server | client → session → relay → upstream → policy → wire → settings, providers,
redact → errors. `wire`, `policy`, `redact` and `errors` are pure: no event loop, no network, no disk, no clock, no
chance. A contract in `pyproject.toml` keeps it so.
"""

__version__ = "0.1.0"
