"""Resolve a slug to its provider, an endpoint to its URL, and a request to its model.

Built-in rows are in `registry`, endpoint rules in `endpoints`; the configuration overrides both.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated
from urllib.parse import unquote

import msgspec

from bridge.errors import EndpointRefused, UnknownProvider
from bridge.nearest import nearest
from bridge.providers.endpoints import (
    Base,
    Target,
    check,
    join,
    quoted,
    substitute,
    target_from_header,
    validate_base_url,
)
from bridge.providers.registry import ALIASES, BEARER, CHAT, REGISTRY, EndedWithoutMark, Provider, Route, plain


def lookup(slug: str, providers: Mapping[str, Provider]) -> Provider:
    """Return a provider by slug or alias. Raises UnknownProvider if it is neither built in nor configured."""
    provider = providers.get(slug) or providers.get(ALIASES.get(slug, slug))
    if provider is None:
        near = nearest(slug, [*providers, *ALIASES])
        suggestion = f"; did you mean {near}?" if near else "."
        raise UnknownProvider(
            f"The provider {quoted(slug)} is neither built in nor configured as [providers.custom-NAME]{suggestion}"
        )
    return provider


# Endpoints.


def resolve(provider: Provider, endpoint: str, *, account: str, headers: Mapping[str, str]) -> Target:
    """Return the URL of one request. `account` is the account id of the URL to which the client connected.

    Path and query are sent unmodified, except for one leading slash. Raises EndpointRefused, with the reason, for an
    endpoint that would leave the provider's base URL or cannot be sent.
    """
    if provider.target_header and (url := _header(headers, provider.target_header)) is not None:
        return target_from_header(url, provider.target_hosts)
    endpoint = endpoint.removeprefix("/")
    check(endpoint)
    for route in provider.routes:
        if (match := _match(route, endpoint)) is not None:
            values, rest = match
            return join(substitute(route.base, {"account_id": account, **values}), rest)
    forms = " or ".join("/".join(route.prefix) for route in provider.routes)
    raise EndpointRefused(f"An endpoint of {provider.slug} must begin with {forms}.")


def _header(headers: Mapping[str, str], header: str) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == header), None)


def _match(route: Route, endpoint: str) -> tuple[dict[str, str], str] | None:
    """Return the placeholders that the endpoint fills and the rest to join; None if the route does not match."""
    if not route.prefix and not route.insert and not route.last_segment:
        return {}, endpoint
    path, mark, query = endpoint.partition("?")
    if route.last_segment and path.rpartition("/")[2] != route.last_segment:
        return None
    segments = path.split("/", len(route.prefix))
    if len(segments) < len(route.prefix):
        return None
    pairs = list(zip(route.prefix, segments, strict=False))
    if any(expected != segment for expected, segment in pairs if expected[0] != "{"):
        return None
    rest = path if route.keep_prefix else "".join(segments[len(pairs) :])
    if route.insert and rest.partition("/")[0] != route.insert:
        rest = f"{route.insert}/{rest}"
    return {expected[1:-1]: segment for expected, segment in pairs if expected[0] == "{"}, rest + mark + query


# Overrides by the configuration.


class _Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base_url: str | None = None
    realtime_base_url: str | None = None
    ended_without_mark: EndedWithoutMark | None = None
    max_connections: Annotated[int, msgspec.Meta(ge=1)] | None = None


_CUSTOM_SLUG = re.compile(r"custom-[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def make_provider(slug: str, table: Mapping[str, object]) -> Provider:
    """Return a built-in provider with the overrides of `[providers.SLUG]`, or a new one.

    Raises ValueError with the reason.
    """
    override = msgspec.convert(dict(table), _Override)
    known = REGISTRY.get(ALIASES.get(slug, slug))
    if known is None:
        known = _custom(slug, override.base_url)
    elif override.base_url is not None:
        known = _moved(known, override.base_url)
    if override.realtime_base_url is not None:
        known = _sockets_moved(known, override.realtime_base_url)
    return replace(
        known,
        ended_without_mark=override.ended_without_mark or known.ended_without_mark,
        max_connections=override.max_connections or known.max_connections,
    )


def with_overrides(overrides: Mapping[str, Mapping[str, object]]) -> Mapping[str, Provider]:
    """Return REGISTRY with the tables `[providers.NAME]` applied. Raises ValueError like make_provider."""
    made = [make_provider(slug, table) for slug, table in overrides.items()]
    return MappingProxyType({**REGISTRY, **{provider.slug: provider for provider in made}})


def _custom(slug: str, base_url: str | None) -> Provider:
    if not _CUSTOM_SLUG.fullmatch(slug):
        raise ValueError(f"{quoted(slug)} is not a built-in provider; name a new one custom-NAME")
    if base_url is None:
        raise ValueError(f"{slug} needs a base_url")
    return plain(slug, base_url, BEARER, CHAT)


def _moved(provider: Provider, base_url: str) -> Provider:
    """Return the provider below another base.

    Routes whose placeholders the new base contains are kept; without placeholders, endpoints are joined unmodified. The
    target header is disabled, because it would bypass the new base.
    """
    known = frozenset[str]().union(*(route.base.names for route in provider.routes))
    base = validate_base_url(base_url, known | {"account_id"})
    found = [(route, _moved_base(route.base, provider, base)) for route in provider.routes]
    routes = tuple(replace(route, base=moved) for route, moved in found if moved is not None)
    if not routes and base.names - {"account_id"}:
        raise ValueError(f"base_url must hold all placeholders of {provider.base_url} or none")
    sockets = replace(provider.realtime, routes=())  # sockets follow the new base
    return replace(provider, base_url=base_url, routes=routes or (Route(base),), target_hosts=(), realtime=sockets)


def _moved_base(route: Base, provider: Provider, base: Base) -> Base | None:
    """Return the base of a route after the provider moved to `base`; None if the route does not apply there.

    A route whose base is the beginning of the provider's (Azure's paths beside deployments) keeps that relation.
    """
    if not base.names:
        return None
    below = provider.base_url.removeprefix(route.url)
    if below in {"", provider.base_url}:
        return base if route.names == base.names else None
    if not base.url.endswith(below):
        return None
    return validate_base_url(base.url.removesuffix(below), route.names | {"account_id"})


def _sockets_moved(provider: Provider, base_url: str) -> Provider:
    """Return the provider with another base for its WebSockets; ws:// and wss:// are accepted."""
    try:
        moved = _moved(provider, _WS.sub("http", base_url))
    except ValueError as error:
        raise ValueError(f"realtime_{error}".replace("http:// or https://", "ws:// or wss://")) from None
    return replace(provider, realtime=replace(provider.realtime, routes=moved.routes))


_WS = re.compile(r"\Aws(?=s?://)", re.IGNORECASE)


# Models.


_MODEL_CHARS = 256

_IN_QUERY = re.compile(r"(?:^|&)model(?:_id)?=([^&]+)")
_IN_PATH = (
    re.compile(r"(?:^|/)models/([^/:]+)"),  # Gemini and Vertex AI: models/X:generateContent
    re.compile(r"(?:^|/)model/([^/]+)"),  # Bedrock and Baseten: model/X/invoke; a Bedrock id may hold a colon
    re.compile(r"(?:^|/)(@[a-z]+/.+)"),  # Workers AI: @cf/author/name
    re.compile(r"(?:^|/)deployments/([^/]+)"),  # Azure's own paths
    re.compile(
        r"^(?!v\d)[A-Za-z0-9-]+/(?!v\d|openai/|chat/|images/|audio/)([^/]+)/"
        r"(?:chat/|completions|embeddings|responses|images/|audio/)"
    ),  # Azure's short paths
    re.compile(r"^(fal-ai/.+)"),
)


_PATH_ONLY = re.compile(r"(?:^|/)(?:models/([^/:]+):|model/([^/]+)/(?:invoke|converse)|(@[a-z]+/.+))")
"""Gemini and Vertex AI, Bedrock, Workers AI: these providers ignore a model in the body."""


def model_of(endpoint: str, in_body: str | None) -> str | None:
    """Return the model for breaker, log, prices and budgets, as far as it can be determined.

    `in_body` (`formats.request_fields`) comes before the model in the endpoint. For providers that use only the
    endpoint it is the other way round: another name in the body could mean another price. Never raises.
    """
    model = _model_by_path(endpoint) or in_body or _model_in_url(endpoint)
    return model[:_MODEL_CHARS] if model else None


def _model_by_path(endpoint: str) -> str | None:
    path = endpoint.partition("?")[0].replace("%3A", ":").replace("%3a", ":")
    found = _PATH_ONLY.search(path)
    return unquote(found[found.lastindex or 0]) if found else None


def _model_in_url(endpoint: str) -> str | None:
    path, _, query = endpoint.removeprefix("/").partition("?")
    found = next((found for pattern in _IN_PATH if (found := pattern.search(path))), None) or _IN_QUERY.search(query)
    return unquote(found[1]) if found else None
