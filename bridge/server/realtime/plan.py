"""Turn a client's handshake into the plan of a connection to a provider. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bridge.policy.token_filter import check_target, protocols_without_tokens, without_tokens
from bridge.protocol.headers import forwarded_headers, strip_proxy_headers, validate_headers
from bridge.protocol.messages import ProviderStep
from bridge.providers import lookup, opening, socket_target
from bridge.relay.plan import PlannedStep, RequestContext, address_at, planned_step
from bridge.settings.step import StepSettings


@dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """The handshake of a client."""

    provider: str
    """The slug in the URL."""
    path: str
    """The rest of the URL's path as the client wrote it, without the leading slash."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    offered: Sequence[str]
    """The offered subprotocols."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """The plan of a connection to a provider."""

    step: PlannedStep
    protocols: tuple[str, ...]
    """The subprotocols to offer."""


def plan(request: RealtimeRequest, context: RequestContext, settings: StepSettings) -> PlannedSession:
    """Return the plan of the session.

    Raises UnknownProvider, NotAllowed, EndpointRefused, BadField, UnknownKey, and what `current_gateway` raises.
    """
    gateway = context.current_gateway()
    provider = lookup(request.provider, context.providers)
    found = opening(provider, request.path, request.query, request.offered)
    target = socket_target(provider, found.endpoint, context.account)
    check_target(target, gateway)
    headers = validate_headers(request.headers.items(), "handshake")
    onward = forwarded_headers(strip_proxy_headers(headers))
    step = without_tokens(ProviderStep(provider.slug, found.endpoint, "GET", headers, onward, b"", settings), gateway)
    if found.key is not None:
        name, value = found.key
        with_key = {name: value, **step.provider_headers}  # a key in a header has precedence
        step = without_tokens(msgspec.structs.replace(step, provider_headers=with_key), gateway)
    address = address_at(target, provider, step.endpoint, step.method, step.headers)
    planned = planned_step(step, provider, address, found.model, context, gateway, brings_key=found.brings_key)
    return PlannedSession(planned, protocols_without_tokens(found.protocols, gateway))
