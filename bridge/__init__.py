"""Universal Bridge: a self-hosted WebSocket gateway to every AI provider.

A client opens one WebSocket (a session) and sends requests (events). Each event has a chain of steps; a step is one
call of a provider. The relay runs an event from its first message to its last frame. `bridge/docs/architecture.md`
describes the packages, their layers and the path of one message; `bridge help architecture` prints it.
"""

__version__ = "0.1.0"
