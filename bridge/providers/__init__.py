"""Who can be called: the registry of providers, and how an endpoint joins its provider's base URL."""

from bridge.providers.endpoints import Target, validate_base_url
from bridge.providers.realtime import Opening, echoed, opening, socket_target
from bridge.providers.registry import ALIASES, REGISTRY, Credential, Provider
from bridge.providers.resolving import lookup, make_provider, model_of, overlay, resolve

__all__ = [
    "ALIASES",
    "REGISTRY",
    "Credential",
    "Opening",
    "Provider",
    "Target",
    "echoed",
    "lookup",
    "make_provider",
    "model_of",
    "opening",
    "overlay",
    "resolve",
    "socket_target",
    "validate_base_url",
]
