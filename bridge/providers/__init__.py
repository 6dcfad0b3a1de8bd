"""Providers: the registry, the target URL of an endpoint, model endpoints, and WebSocket handshakes. Pure."""

from bridge.providers.endpoints import Target, validate_base_url
from bridge.providers.realtime import RealtimeHandshake, opening, select_subprotocol, socket_target
from bridge.providers.registry import ALIASES, REGISTRY, Credential, Provider
from bridge.providers.resolving import lookup, make_provider, model_of, resolve, with_overrides

__all__ = [
    "ALIASES",
    "REGISTRY",
    "Credential",
    "Provider",
    "RealtimeHandshake",
    "Target",
    "lookup",
    "make_provider",
    "model_of",
    "opening",
    "resolve",
    "select_subprotocol",
    "socket_target",
    "validate_base_url",
    "with_overrides",
]
