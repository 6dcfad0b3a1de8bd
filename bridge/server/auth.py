"""Authorize a handshake by its headers and its query: token, origin, heartbeat, compatibility. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from bridge.config.checks import is_loopback
from bridge.config.gateways import Gateway, Token, authenticate
from bridge.errors import BadField, OriginRefused, Unauthorized
from bridge.providers.realtime import TOKEN_PROTOCOL, plain_value

TOKEN_HEADER: Final = "cf-aig-authorization"  # noqa: S105 - a header's name
PROTOCOL_HEADER: Final = "Sec-WebSocket-Protocol"
MAX_HEARTBEAT_S: Final = 3600

_AUTHORITY: Final = r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?"
_HOST: Final = re.compile(_AUTHORITY)  # RFC 9110, section 7.2
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://" + _AUTHORITY)  # RFC 6454, section 6.2; `null` never matches


def offered_protocols(headers: Iterable[str]) -> list[str]:
    """Return the values of all `Sec-WebSocket-Protocol` headers in the client's order (RFC 6455, section 11.3.4)."""
    return [value for header in headers for part in header.split(",") if (value := part.strip())]


def check_token(gateway: Gateway, header: str | None, offered: Iterable[str]) -> str:
    """Return the name of the token in the header or the subprotocol; empty if the gateway is open.

    Raises Unauthorized.
    """
    if gateway.is_open:
        return ""
    presented = _token_in(header, offered)
    if presented is None:
        raise Unauthorized(
            f"Unauthorized: gateway {gateway.name!r} requires a token: send header {TOKEN_HEADER}: Bearer TOKEN "
            f"or subprotocol {TOKEN_PROTOCOL}TOKEN"
        )
    name = authenticate(gateway, presented) or authenticate(gateway, plain_value(presented))
    if name is None:
        raise Unauthorized(f"Unauthorized: the token is not valid for gateway {gateway.name!r}")
    return name


def revalidate_token(gateway: Gateway, presented: Token | None) -> Gateway:
    """Return the gateway of the current configuration, if the token presented at connect is still valid for it.

    `presented` is None for a client that connected while the gateway was open. Raises Unauthorized if the token was
    removed or its secret changed.
    """
    if gateway.is_open:
        return gateway
    if presented is None:
        raise Unauthorized(f"Unauthorized: gateway {gateway.name!r} now requires a token; reconnect with one")
    known = gateway.token(presented.name)
    if known is None or known.digest != presented.digest:
        raise Unauthorized(
            f"Unauthorized: the token {presented.name!r} is no longer valid for gateway {gateway.name!r}"
        )
    return gateway


def _token_in(header: str | None, offered: Iterable[str]) -> str | None:
    if header is not None:
        scheme, _, token = header.strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token else header.strip()
    return next((value[len(TOKEN_PROTOCOL) :] for value in offered if value.startswith(TOKEN_PROTOCOL)), None)


def check_origin(gateway: Gateway, host: str, origin: str | None) -> None:
    """Refuse foreign hosts and origins at an open gateway: web pages and DNS rebinding reach loopback too.

    Raises OriginRefused.
    """
    if not gateway.is_open:
        return
    name = _host_in(_HOST, host)
    if not (is_loopback(name) or _is_listed(gateway.allowed_hosts, host, name)):
        raise OriginRefused(f"host {host[:128]!r} is neither loopback nor listed in allowed_hosts")
    if origin is None:
        return
    if not is_known_origin(gateway, origin):
        raise OriginRefused(f"origin {origin[:128]!r} is neither loopback nor listed in allowed_origins")


def is_known_origin(gateway: Gateway, origin: str) -> bool:
    """Return True for an origin in `allowed_origins`, and for a loopback origin if the gateway is open."""
    if gateway.is_open and is_loopback(_host_in(_ORIGIN, origin)):
        return True
    return _is_listed(gateway.allowed_origins, origin)


def _host_in(pattern: re.Pattern[str], header: str) -> str:
    """Return the host without its port; empty if the header does not match `pattern`."""
    found = pattern.fullmatch(header)
    return (found["address"] or found["name"]) if found else ""


def _is_listed(allowed: Iterable[str], *names: str) -> bool:
    return any(entry in {"*", *(name.lower() for name in names)} for entry in allowed)


def heartbeat_s(query: Mapping[str, str]) -> float | None:
    """Return the seconds of the URL's `?heartbeat=SECONDS`, or None. Raises BadField."""
    value = query.get("heartbeat")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_HEARTBEAT_S:
        raise BadField(f"heartbeat: expected 1 to {MAX_HEARTBEAT_S} seconds")
    return seconds


def is_compat(query: Mapping[str, str], gateway: Gateway) -> bool:
    """Return True if the client is to be served as Cloudflare's gateway would serve it. Raises BadField."""
    value = query.get("compat")
    if value not in {None, "cloudflare"}:
        raise BadField("compat: expected cloudflare")
    return gateway.compat or value is not None
