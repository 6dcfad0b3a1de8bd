"""The headers that let pages of other origins read responses (CORS, fetch.spec.whatwg.org)."""

from collections.abc import Mapping
from typing import Final

from bridge.config.gateways import Gateway
from bridge.errors import OriginRefused
from bridge.server.auth import is_known_origin

_MAX_AGE_S: Final = 600


def grant(gateway: Gateway, origin: str | None) -> dict[str, str]:
    """Return the headers of every response to a page of `origin`; none if it may not read responses.

    Credentials are never allowed.
    """
    if origin is None or not is_known_origin(gateway, origin):
        return {}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "*",
        "vary": "origin",
    }


def check_site(gateway: Gateway, headers: Mapping[str, str]) -> None:
    """Refuse cross-site requests that have no Origin header, such as those for images, at an open gateway.

    Raises OriginRefused.
    """
    if gateway.is_open and "Origin" not in headers and headers.get("Sec-Fetch-Site") == "cross-site":
        raise OriginRefused("an open gateway refuses requests from pages of other sites")


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    return method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def preflight(granted: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a preflight response: every requested method and header, if the origin is `granted`."""
    if not granted:
        return {}
    requested = {
        "access-control-allow-methods": headers["Access-Control-Request-Method"],
        "access-control-allow-headers": headers.get("Access-Control-Request-Headers", ""),
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return {**granted, **{name: value for name, value in requested.items() if value}}
