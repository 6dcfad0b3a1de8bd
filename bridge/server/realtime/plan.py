"""From a client's handshake to a socket that can be dialled. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bridge.policy.token_filter import check_target, protocols_without_tokens, without_tokens
from bridge.protocol.headers import forwarded_headers, strip_proxy_headers, validate_headers
from bridge.protocol.messages import ProviderStep
from bridge.providers import lookup, opening, socket_target
from bridge.relay.plan import PlannedStep, RequestContext, planned_step
from bridge.settings.step import StepSettings


@dataclass(frozen=True, slots=True)
class RealtimeRequest:
    """A client's handshake."""

    provider: str
    """The slug, as it stands in the URL."""
    path: str
    """What follows it, without the first slash, as it was written."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    offered: Sequence[str]
    """Subprotocols."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """What is to be dialled."""

    step: PlannedStep
    protocols: tuple[str, ...]
    """To be offered."""


def plan(request: RealtimeRequest, context: RequestContext, settings: StepSettings) -> PlannedSession:
    """Raises what `Ground.live` does, UnknownProvider, NotAllowed, EndpointRefused, BadField, UnknownKey."""
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
        with_key = {name: value, **step.provider_headers}  # a header comes before what stands elsewhere
        step = without_tokens(msgspec.structs.replace(step, provider_headers=with_key), gateway)
    planned = planned_step(step, provider, target, found.model, context, gateway, brings_key=found.brings_key)
    return PlannedSession(planned, protocols_without_tokens(found.protocols, gateway))
