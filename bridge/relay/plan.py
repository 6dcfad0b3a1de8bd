"""Resolve a request's steps: provider, address, key and policy of each. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from bridge.config.gateways import Gateway
from bridge.config.keys import StoredKey
from bridge.errors import BridgeError
from bridge.policy import openai_compat
from bridge.policy.breaker import BreakerKey
from bridge.policy.chain import StepPolicy
from bridge.policy.key_selection import key_for
from bridge.policy.scopes import RequestedCall, check_call, check_provider
from bridge.policy.token_filter import check_target, without_tokens
from bridge.protocol.messages import ProviderStep
from bridge.providers import Provider, Target, lookup, model_of, resolve
from bridge.providers.model_endpoints import is_model_endpoint, is_model_socket
from bridge.relay.summary import Transport
from bridge.settings.accounting import CustomCost
from bridge.settings.step import StepSettings

_CACHED_CHARS: Final = 256
"""Longer endpoints are resolved every time, so that the cache of addresses stays small."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One resolved step."""

    step: ProviderStep
    provider: Provider
    target: Target
    model: str | None
    policy: StepPolicy
    key: StoredKey | None = None
    """Stored key for a request without a credential, or the service account that the request brought."""
    price: CustomCost | None = None
    """The gateway's custom price, whatever price the request gives."""
    calls_model: bool = False
    """True for a POST to a model endpoint, and for a realtime session with a model."""


@dataclass(frozen=True, slots=True)
class StepAddress:
    """The target of a step, and what follows from it."""

    target: Target
    endpoints: tuple[str, ...]
    """The endpoint as written and the path below the base URL, which may differ. A URL in a header replaces them."""
    calls_model: bool
    """True for a call of a model endpoint."""
    origin: str


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Account, gateway, token and transport of an event."""

    account: str
    gateway: str
    """Name in the client's URL."""
    gateway_at_connect: Gateway
    """Configuration of the gateway when the socket was opened or the HTTP request arrived."""
    providers: Mapping[str, Provider]
    current_gateway: Callable[[], Gateway]
    """Return the current configuration of the gateway: its tokens, keys and limits.

    Raises UnknownGateway if the gateway was removed, Unauthorized if the presented token was.
    """
    token: str = ""
    """Name of the presented token; empty for an open gateway."""
    transport: Transport = "websocket"
    user_agent: str = ""
    traceparent: str = ""
    """The header of that name from the handshake or the HTTP request."""


def header_chars(steps: list[ProviderStep]) -> int:
    """Return the total length of the endpoints and headers that `plan` searches for tokens."""
    return sum(len(step.endpoint) + sum(map(len, step.provider_headers.values())) for step in steps)


def plan(steps: list[ProviderStep], context: RequestContext) -> list[PlannedStep]:
    """Return the resolved steps.

    Raises the errors of `RequestContext.current_gateway`, and UnknownProvider, NotAllowed, EndpointRefused and
    UnknownKey, whose messages name the step if there are several.
    """
    gateway = context.current_gateway()
    planned = []
    for index, step in enumerate(steps):
        try:
            planned.append(_plan_step(step, context, gateway))
        except BridgeError as error:
            if len(steps) == 1:
                raise
            raise type(error)(f"step {index}: {error}") from None
    return planned


def _plan_step(step: ProviderStep, context: RequestContext, gateway: Gateway) -> PlannedStep:
    step = without_tokens(step, gateway)
    if step.provider == openai_compat.SLUG:
        step = openai_compat.routed(step, context.providers)
    provider = lookup(step.provider, context.providers)
    address = _address_of(step, provider, context.account)
    check_target(address.target, gateway)
    return planned_step(step, provider, address, model_of(step.endpoint, step.model), context, gateway)


def planned_step(
    step: ProviderStep,
    provider: Provider,
    address: StepAddress,
    model: str | None,
    context: RequestContext,
    gateway: Gateway,
    *,
    brings_key: bool = False,
) -> PlannedStep:
    """Return the step with its key, policy and price. A step that `brings_key` gets no stored key.

    Raises NotAllowed, UnknownKey.
    """
    token = gateway.token(context.token)
    if token is not None:
        check_provider(token, provider.slug)
    key = None if brings_key else key_for(step, provider, gateway.keys)
    endpoints, calls_model = address.endpoints, address.calls_model
    is_socket, is_stored = context.transport == "realtime", key is not None and bool(key.alias)
    if is_socket:
        calls_model = any(is_model_socket(endpoint, provider.slug) for endpoint in endpoints)
    if token is not None:
        call = RequestedCall(provider.slug, step.method, endpoints, model, calls_model, is_socket, is_stored)
        check_call(token, gateway, call)
    policy = _policy(step, provider, address, model, context, calls_model=calls_model)
    price = context.gateway_at_connect.settings.custom_cost
    return PlannedStep(step, provider, address.target, model, policy, key, price, calls_model)


def _policy(
    step: ProviderStep,
    provider: Provider,
    address: StepAddress,
    model: str | None,
    context: RequestContext,
    *,
    calls_model: bool,
) -> StepPolicy:
    settings = step.settings
    key = BreakerKey(context.gateway, context.token, address.target.base, model, provider.slug)
    return StepPolicy(
        max_attempts=settings.max_attempts,
        retry_delay_ms=settings.retry_delay,
        backoff=settings.backoff,
        max_retry_after_ms=settings.max_retry_after,
        on_policy=settings.on_policy,
        on_break=settings.on_break if context.transport == "websocket" else "error",
        breaker_key=key if calls_model else None,
        origin=address.origin,
        request_timeout_counts=_has_full_timeouts(settings, context.gateway_at_connect.settings),
    )


def _address_of(step: ProviderStep, provider: Provider, account: str) -> StepAddress:
    """Return the address of a step. Raises EndpointRefused."""
    # A header or a query may hold a secret, which a cache would keep.
    if not provider.target_header and "?" not in step.endpoint and len(step.endpoint) <= _CACHED_CHARS:
        return _cached_address(provider, step.endpoint, step.method, account)
    target = resolve(provider, step.endpoint, account=account, headers=step.headers)
    return address_at(target, provider, step.endpoint, step.method, step.headers)


@lru_cache(maxsize=1024)
def _cached_address(provider: Provider, endpoint: str, method: str, account: str) -> StepAddress:
    target = resolve(provider, endpoint, account=account, headers={})
    return address_at(target, provider, endpoint, method, {})


def address_at(
    target: Target, provider: Provider, endpoint: str, method: str, headers: Mapping[str, str]
) -> StepAddress:
    """Return the address of a step whose target is known. The deciding part of a path may be in the base URL."""
    path = target.raw_path.decode()
    below = path.removeprefix(urlsplit(target.base).path)
    is_in_header = provider.target_header in headers
    endpoints = (path,) if is_in_header else (endpoint, below)
    calls_model = not (is_in_header and not _runs_models(provider, target)) and any(
        is_model_endpoint(method, each, provider.slug) for each in (*endpoints, path)
    )
    return StepAddress(target, endpoints, calls_model, f"{target.scheme}://{target.host}:{target.port or ''}")


def _runs_models(provider: Provider, target: Target) -> bool:
    """Return True if the host of a URL in a header is the provider's own host or a subdomain of it."""
    host = urlsplit(provider.base_url).hostname or ""
    return target.host == host or target.host.endswith(f".{host}")


def _has_full_timeouts(requested: StepSettings, defaults: StepSettings) -> bool:
    """Return True if no timeout is shorter than the gateway's: breakers count timeouts only then."""
    pairs = (
        (requested.connect_timeout, defaults.connect_timeout),
        (requested.request_timeout, defaults.request_timeout),
        (requested.idle_timeout, defaults.idle_timeout),
    )
    return requested is defaults or all(value == 0 or 0 < limit <= value for value, limit in pairs)
