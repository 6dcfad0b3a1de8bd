"""What a browser has to be told before a page of another origin may read an answer (fetch.spec.whatwg.org, CORS)."""

from collections.abc import Mapping
from typing import Final

from bridge.config.gateways import Gateway
from bridge.errors import OriginRefused
from bridge.server.auth import is_known_origin

_MAX_AGE_S: Final = 600


def grant(gateway: Gateway, origin: str | None) -> dict[str, str]:
    """The headers of every answer to a page of that origin; none where it may not read them. Cookies never count."""
    if origin is None or not is_known_origin(gateway, origin):
        return {}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "*",
        "vary": "origin",
    }


def check_site(gateway: Gateway, headers: Mapping[str, str]) -> None:
    """Raises OriginRefused: what a page makes a browser fetch without reading it, an image say, names no origin."""
    if gateway.is_open and "Origin" not in headers and headers.get("Sec-Fetch-Site") == "cross-site":
        raise OriginRefused("an open gateway is not fetched from by the pages of other sites")


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    return method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def preflight(granted: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    """The answer to a browser that asks first: whatever the page wants to send, if it may read answers at all."""
    if not granted:
        return {}
    asked = {
        "access-control-allow-methods": headers["Access-Control-Request-Method"],
        "access-control-allow-headers": headers.get("Access-Control-Request-Headers", ""),
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return {**granted, **{name: value for name, value in asked.items() if value}}
