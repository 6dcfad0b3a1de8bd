"""Universal Bridge: a self-hosted WebSocket gateway to every AI provider.

`bridge help architecture` (`bridge/docs/architecture.md`) describes the packages and the path of a message.
For users of the package: `bridge.client` calls a bridge from Python, `bridge.transports` carries the calls of SDKs, and
`bridge.testing` with its pytest plugin is for tests of software that calls a bridge.
"""

__version__ = "0.1.0"
