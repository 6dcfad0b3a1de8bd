"""Universal Bridge: a self-hosted WebSocket gateway to every AI provider.

Five words. A *session* is one client's socket. An *event* is one request on it, named by its `eventId`. A *chain*
is the event's list of steps, and decides what to try next. A *step* is one provider call. A *relay* runs one event
from its first message to its last frame.

The way of one message: `door` upgrades and authenticates (`handshake`); `session` parses a message
(`wire.messages`) and starts a task for it; `relay.event_relay` asks the chain (`policy.chain`) what to try, and
lets a `relay.attempt` try it (`upstream.http`); a `relay.passage` passes the stream on, read by read, through a
decoder (`wire.body`), a reader that knows what items mean (`wire.dialects`) and what makes frames of them
(`wire.carriers`, `wire.frames`). A `relay.voice` is how the event is heard: in frames on a socket, or as the answer to
an HTTP request (`http_voice`), which comes in by `http_door` and is one `http_event`.

A WebSocket below a provider's name has no events: `realtime` relays it to the provider's own (`upstream.realtime`),
message by message, and for the rest of the house it is one long event.

What a gateway does for its events beside calling providers are its `services`: a gate, a cache, keys, prices, and
observers that keep a log and count. `assembly` puts together those that the configuration asks for; `relay.services`
says what an event asks of each, and when.

With `--workers` a `supervisor` starts the whole several times; each process is a `worker`, and gets its sockets from
there (`listening`). What processes and machines share beyond that is in `storage.redis`, which may be lost; what
workers count, each for all to read, in `storage.tallies`. Who runs a bridge asks its `probes` how it is.

Imports point down only: cli → transports → server | client | supervisor → assembly → door → session, http_event →
services → relay → upstream, storage → policy → wire → config → providers, settings → errors, redact. `wire`, `policy`,
`providers`, `settings`, `redact` and `errors` are pure: no event loop, no network, no disk, no clock, no chance.
Contracts in `pyproject.toml` keep it so.

Around it: `client` and `transports` are for those who call a bridge from Python, `testing` and `pytest_plugin` for
those who test against one, `upstream.tape` and its neighbours for recorded traffic.
"""

__version__ = "0.1.0"
