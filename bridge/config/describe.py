"""Describe a configuration in lines for people, without any secret."""

from collections.abc import Iterable, Iterator

from bridge.config import PROVIDER, Configuration
from bridge.config.checks import is_loopback
from bridge.config.gateways import ANY, Gateway, Token
from bridge.config.limits import NO_LIMITS, Dimension, Limits, SpendRule
from bridge.providers import REGISTRY, Provider
from bridge.redact.text import redact_url
from bridge.settings.server import SERVER, ServerSettings
from bridge.settings.step import SETTINGS

_SHOWN_SEPARATELY = ("host", "port", "tls_cert", "tls_key")


def describe(config: Configuration) -> list[str]:
    """Return the listening address, the access rules, and all values that differ from their defaults.

    Lines that belong to the line above are indented.
    """
    lines = [_listening(config.server), *_server(config.server)]
    for gateway in config.gateways.values():
        lines += _gateway(gateway)
    for provider in config.providers.values():
        lines += _provider(provider)
    return [*lines, *(f"note: {note}" for note in config.notes)]


def _listening(server: ServerSettings) -> str:
    scheme = "wss" if server.tls_cert else "ws"
    host = f"[{server.host}]" if ":" in server.host else server.host
    reach = "this machine only" if is_loopback(server.host) else "other machines too"
    return f"listens on {scheme}://{host}:{server.port or '(any free port)'} ({reach})"


def _server(server: ServerSettings) -> Iterator[str]:
    rows = ((row.name, getattr(server, row.name), row.default) for row in SERVER if row.name not in _SHOWN_SEPARATELY)
    yield from _differences(rows)
    if server.tls_cert:
        yield f"  certificate {server.tls_cert}, key {server.tls_key}"


def _gateway(gateway: Gateway) -> Iterator[str]:
    name = "for any name" if gateway.name == ANY else gateway.name
    tokens = ", ".join(f"{token.name} ({token.source})" for token in gateway.tokens)
    yield f"gateway {name}: " + (f"tokens {tokens}" if tokens else "open to anyone who can reach it")
    yield from _differences((row.name, getattr(gateway.settings, row.name), row.default) for row in SETTINGS)
    yield from _differences(
        (
            ("compat", gateway.compat, False),
            ("allowed_origins", ", ".join(gateway.allowed_origins), ""),
            ("allowed_hosts", ", ".join(gateway.allowed_hosts), ""),
            ("stored_key_access", gateway.stored_key_access, "models"),
            ("cache_shared", gateway.cache_shared, False),
            ("collect_log_locked", gateway.collect_log_locked, False),
            ("log_management", gateway.log_rows, 0),
            ("log_management_strategy", gateway.log_strategy, "DELETE_OLDEST"),
        )
    )
    yield from (f"  limit: {limit}" for limit in _limits(gateway.limits))
    for token in gateway.tokens:
        yield from (f"  token {token.name}: {scope}" for scope in _scopes(token))
    for key in gateway.keys.values():
        yield f"  key of {key.provider}: {key.alias} ({key.source})"
    for exporter in gateway.otel:
        yield f"  traces to {redact_url(exporter.url)} ({exporter.content_type})"


def _scopes(token: Token) -> Iterator[str]:
    if token.providers is not None:
        yield f"may call {', '.join(sorted(token.providers))}"
    for name in ("models", "endpoints", "methods"):
        if (scope := getattr(token, name)) is not None:
            yield f"{name} {', '.join(sorted(scope))}"
    if token.stored_key_access is not None:
        yield f"stored_key_access = {token.stored_key_access}"
    yield from _limits(token.limits)


def _limits(limits: Limits) -> Iterator[str]:
    if limits.rate is not None:
        yield f"{limits.rate.limit} events in {limits.rate.interval_s} s, {limits.rate.technique}"
    for rule in limits.spend:
        yield f"{rule.limit_usd:g} USD in {rule.window_s} s, {rule.technique}{_dimensions(rule)} ({rule.id})"
    if limits.spend and limits.allow_unpriced:
        yield "calls without a known price are allowed and not counted"
    if limits.max_concurrent:
        yield f"{limits.max_concurrent} events at once"
    for slug, limit in limits.max_concurrent_by_provider.items():
        yield f"{limit} events at once with {slug}"
    if limits.max_wait_ms != NO_LIMITS.max_wait_ms:
        yield f"events wait at most {limits.max_wait_ms} ms for a slot"


def _dimensions(rule: SpendRule) -> str:
    """Return text such as `, for each metadata user, for provider openai`."""
    named = {f"metadata {key}": found for key, found in rule.metadata.items()}
    named |= {name: found for name in ("provider", "model") if (found := getattr(rule, name)) is not None}
    return "".join(f", {_dimension(name, dimension)}" for name, dimension in named.items())


def _dimension(name: str, found: Dimension) -> str:
    values = " or ".join(sorted(found.values))
    if found.mode == "filter":
        return f"for {name} {values}"
    return f"for each {name}" + (f" of {values}" if values else "")


def _provider(provider: Provider) -> Iterator[str]:
    known = REGISTRY.get(provider.slug)
    if known != provider:
        yield f"provider {provider.slug}, {'changed' if known else 'added'}"
        yield from _differences((key, _plain(provider, key), _plain(known, key)) for key in PROVIDER)


def _plain(provider: Provider | None, key: str) -> object:
    value = getattr(provider, key, None)
    return redact_url(value) if isinstance(value, str) and key == "base_url" else value


def _differences(rows: Iterable[tuple[str, object, object]]) -> Iterator[str]:
    for name, value, default in rows:
        if value != default:
            yield f"  {name} = {value}" + ("" if default in (None, "") else f" (default {default})")
