"""Maps the URL of an HTTP request to a provider's slug and an endpoint, by means of the registry. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from bridge.errors import EndpointRefused
from bridge.providers import REGISTRY, Provider, resolve
from bridge.providers.endpoints import Base, Target, endpoint_of, quoted, validate_base_url

_PLACEHOLDER: Final = re.compile(r"\\\{([a-z_]+)\\\}")
_REST: Final = r"(?P<rest>(?:/.*)?(?:\?.*)?)"
_PORTS: Final = {"http": 80, "https": 443}
_GATEWAY: Final = re.compile(r"/v1/([^/]+)/[^/]+/?")


class NoProvider(ValueError):
    """The URL belongs to no known provider; the message says what to do."""


class ProviderPlace(NamedTuple):
    provider: str
    endpoint: str


class Address(NamedTuple):
    """Parts of a URL as HTTP clients give them."""

    scheme: str
    host: str
    """Lower case; an IPv6 address has no brackets."""
    port: int | None
    """None for the default port of the scheme."""
    raw_path: str
    """Path and query, encoded for sending."""

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


@dataclass(frozen=True, slots=True)
class _UrlPattern:
    """Pattern of one base URL. `begins` are the segments that an endpoint has in place of parts of the host."""

    pattern: re.Pattern[str]
    base: Base
    begins: tuple[str, ...]
    provider: Provider | str
    """A bare slug is a provider that only the bridge's configuration defines."""

    def place(self, address: Address, account: str) -> ProviderPlace | None:
        """Return the place of a URL; None unless the bridge would resolve the endpoint to exactly this URL."""
        found = self.pattern.fullmatch(address.origin + address.raw_path)
        if found is None:
            return None
        rest = endpoint_of(self.base, found["rest"].removeprefix("/"))
        begins = [found[begin[1:-1]] if begin[0] == "{" else begin for begin in self.begins]
        endpoint = "/".join([*begins, rest]) if begins else rest
        if isinstance(self.provider, str):
            return ProviderPlace(self.provider, endpoint)
        return (
            ProviderPlace(self.provider.slug, endpoint)
            if _resolves_to(self.provider, endpoint, account, address)
            else None
        )


class Routes:
    """Finds the provider of a URL: in `own`, then among the built-in providers; `provider` is the fallback."""

    def __init__(self, bridge_url: str, own: Mapping[str, str] | None = None, provider: str | None = None) -> None:
        """`own` maps base URLs to slugs. Raises ValueError for an invalid base URL."""
        gateway = _GATEWAY.search(bridge_url)
        self._account = gateway[1] if gateway else ""
        self._provider = provider
        longest_first = sorted((own or {}).items(), key=lambda item: len(item[0]), reverse=True)
        self._patterns = [*(_custom_pattern(url, slug) for url, slug in longest_first), *_BUILT_IN]

    def place(self, address: Address) -> ProviderPlace:
        """Return the provider and endpoint of a URL. Raises NoProvider."""
        for pattern in self._patterns:
            if place := pattern.place(address, self._account):
                return place
        if self._provider is not None:
            return ProviderPlace(self._provider, address.raw_path.removeprefix("/"))
        raise NoProvider(
            f"no provider of the bridge is known for {quoted(address.origin)}: give the transport provider='SLUG', or "
            f"routes={{{quoted(address.origin)}: 'SLUG'}}"
        )


def _resolves_to(provider: Provider, endpoint: str, account: str, address: Address) -> bool:
    try:
        target = resolve(provider, endpoint, account=account, headers={})
    except EndpointRefused:
        return False
    return _address_of(target) == address


def _address_of(target: Target) -> Address:
    return Address(target.scheme, target.host, _port(target.scheme, target.port), target.raw_path.decode())


def _port(scheme: str, port: int | None) -> int | None:
    return None if port == _PORTS[scheme] else port


def _custom_pattern(url: str, slug: str) -> _UrlPattern:
    base = validate_base_url(url, frozenset())
    return _UrlPattern(_pattern(base), base, (), slug)


def _built_in() -> Iterator[_UrlPattern]:
    for provider in REGISTRY.values():
        for route in sorted(provider.routes, key=lambda route: len(route.base.url), reverse=True):
            yield _UrlPattern(_pattern(route.base), route.base, () if route.keep_prefix else route.prefix, provider)


def _pattern(base: Base) -> re.Pattern[str]:
    """Return a pattern for URLs below `base`; the placeholders of `base` become groups."""
    origin = Address(base.scheme, base.host, _port(base.scheme, base.port), "").origin
    return re.compile(_with_groups(origin, r"[^/?.:]+") + _with_groups(base.path, r"[^/?]+") + _REST)


def _with_groups(template: str, each: str) -> str:
    return _PLACEHOLDER.sub(lambda found: f"(?P<{found[1]}>{each})", re.escape(template))


_BUILT_IN: Final = tuple(_built_in())
