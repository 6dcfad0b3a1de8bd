"""From a client's handshake to a socket that can be dialled. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from bridge.policy.gateway_tokens import check_target, protocols_without_tokens, without_tokens
from bridge.providers import lookup, opening, socket_target
from bridge.relay.plan import Ground, PlannedStep, planned_step
from bridge.settings.step import StepSettings
from bridge.wire.headers import checked, forwarded, without_the_way_here
from bridge.wire.messages import Step


@dataclass(frozen=True, slots=True)
class Asked:
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
class Planned:
    """What is to be dialled."""

    step: PlannedStep
    protocols: tuple[str, ...]
    """To be offered."""


def plan(asked: Asked, ground: Ground, settings: StepSettings) -> Planned:
    """Raises what `Ground.live` does, UnknownProvider, NotAllowed, EndpointRefused, BadField, UnknownKey."""
    gateway = ground.live()
    provider = lookup(asked.provider, ground.providers)
    found = opening(provider, asked.path, asked.query, asked.offered)
    target = socket_target(provider, found.endpoint, ground.account)
    check_target(target, gateway)
    headers = checked(asked.headers.items(), "handshake")
    onward = forwarded(without_the_way_here(headers))
    step = without_tokens(Step(provider.slug, found.endpoint, "GET", headers, onward, b"", settings), gateway)
    if found.key is not None:
        name, value = found.key
        with_key = {name: value, **step.provider_headers}  # a header comes before what stands elsewhere
        step = without_tokens(msgspec.structs.replace(step, provider_headers=with_key), gateway)
    planned = planned_step(step, provider, target, found.model, ground, gateway, brings_key=found.brings_key)
    return Planned(planned, protocols_without_tokens(found.protocols, gateway))
