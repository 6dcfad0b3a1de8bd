"""Check whether a token may make a call, by its scopes and the permitted uses of stored keys. Pure.

A stored key belongs to the gateway, and so do the files and stored responses at its provider, also those of other
tokens. So a token that uses a stored key may only call models, unless the configuration permits more.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from bridge.config.gateways import Gateway, Token
from bridge.errors import NotAllowed
from bridge.providers.model_endpoints import is_model_list, without_version

_MAX_MODEL_CHARS: Final = 100


class RequestedCall(NamedTuple):
    """A call to be checked."""

    provider: str
    """Provider slug."""
    method: str
    endpoints: tuple[str, ...]
    """The path as written, and relative to the provider's base URL."""
    model: str | None
    calls_model: bool
    """True for a POST to a model endpoint, and for a realtime session with a model."""
    is_socket: bool
    """True for a realtime session."""
    uses_stored_key: bool


def check_provider(token: Token, provider: str) -> None:
    """Check the provider against the token. Raises NotAllowed."""
    if token.providers is not None and provider not in token.providers:
        raise NotAllowed(f"The token {token.name!r} may not call {provider}; it may call {_listed(token.providers)}.")


def check_call(token: Token, gateway: Gateway, call: RequestedCall) -> None:
    """Check a call against all scopes. Raises NotAllowed with a message that names the scope."""
    _check_method(token, call)
    _check_endpoint(token, call)
    _check_model(token, call)
    _check_stored_key(token, gateway, call)


def _check_method(token: Token, call: RequestedCall) -> None:
    if token.methods is not None and call.method not in token.methods:
        raise NotAllowed(
            f"The token {token.name!r} may not use the method {call.method}; it may use {_listed(token.methods)}."
        )


def _check_endpoint(token: Token, call: RequestedCall) -> None:
    if token.endpoints is not None and not any(_is_below(path, token.endpoints) for path in call.endpoints):
        raise NotAllowed(
            f"The token {token.name!r} may not call this endpoint of {call.provider}; "
            f"it may call those that begin with {_listed(token.endpoints)}."
        )


def _check_model(token: Token, call: RequestedCall) -> None:
    """Check the model. A list of models is exempt; a request without a readable model is refused."""
    if token.models is None or _lists_models(call):
        return
    if call.model is None:
        raise NotAllowed(
            f"The token {token.name!r} may only call some models, and no model can be read from the request; "
            f"name one of {_listed(token.models)}."
        )
    if not any(_names(pattern, call.model) for pattern in token.models):
        raise NotAllowed(
            f"The token {token.name!r} may not call the model {call.model[:_MAX_MODEL_CHARS]!r}; "
            f"it may call {_listed(token.models)}."
        )


def _check_stored_key(token: Token, gateway: Gateway, call: RequestedCall) -> None:
    access = token.stored_key_access or gateway.stored_key_access
    if not call.uses_stored_key or access == "full" or token.endpoints is not None:
        return
    if not call.calls_model and not _lists_models(call):
        raise NotAllowed(
            f"The token {token.name!r} may use the stored key of {call.provider} only to POST to model endpoints, to "
            "open realtime sessions and to GET the list of models. Bring a key of your own, or give the token "
            'endpoints, or stored_key_access = "full".'
        )


def _lists_models(call: RequestedCall) -> bool:
    return not call.is_socket and any(is_model_list(call.method, path) for path in call.endpoints)


def _is_below(endpoint: str, prefixes: Iterable[str]) -> bool:
    path = without_version(endpoint)
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in map(without_version, prefixes))


def _names(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
