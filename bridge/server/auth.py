"""Who may open a socket, and on which terms: pure decisions over a handshake's headers and query."""

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
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://" + _AUTHORITY)  # RFC 6454, section 6.2; `null` is none of ours


def offered_protocols(headers: Iterable[str]) -> list[str]:
    """The values of all `Sec-WebSocket-Protocol` headers (RFC 6455, section 11.3.4), in the client's order."""
    return [value for header in headers for part in header.split(",") if (value := part.strip())]


def check_token(gateway: Gateway, header: str | None, offered: Iterable[str]) -> str:
    """The name of the token that came by header or by subprotocol; empty if the gateway is open.

    Raises Unauthorized.
    """
    if gateway.is_open:
        return ""
    presented = _token_in(header, offered)
    if presented is None:
        raise Unauthorized(
            f"Unauthorized: gateway {gateway.name!r} wants a token, as header {TOKEN_HEADER}: Bearer TOKEN "
            f"or as subprotocol {TOKEN_PROTOCOL}TOKEN"
        )
    name = authenticate(gateway, presented) or authenticate(gateway, plain_value(presented))
    if name is None:
        raise Unauthorized(f"Unauthorized: the token is not one of gateway {gateway.name!r}")
    return name


def revalidate_token(gateway: Gateway, presented: Token | None) -> Gateway:
    """The gateway as it is configured now, for whoever came in with that token, or with none while it was open.

    Raises Unauthorized if the token is gone, or stands for another secret.
    """
    if gateway.is_open:
        return gateway
    if presented is None:
        raise Unauthorized(f"Unauthorized: gateway {gateway.name!r} wants a token now; connect anew with one")
    known = gateway.token(presented.name)
    if known is None or known.digest != presented.digest:
        raise Unauthorized(f"Unauthorized: the token {presented.name!r} is no longer one of gateway {gateway.name!r}")
    return gateway


def _token_in(header: str | None, offered: Iterable[str]) -> str | None:
    if header is not None:
        scheme, _, token = header.strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token else header.strip()
    return next((value[len(TOKEN_PROTOCOL) :] for value in offered if value.startswith(TOKEN_PROTOCOL)), None)


def check_origin(gateway: Gateway, host: str, origin: str | None) -> None:
    """Raises OriginRefused: web pages and DNS rebinding reach an open gateway on loopback too."""
    if not gateway.is_open:
        return
    name = _named(_HOST, host)
    if not (is_loopback(name) or _is_listed(gateway.allowed_hosts, host, name)):
        raise OriginRefused(f"host {host[:128]!r} is neither loopback nor listed in allowed_hosts")
    if origin is None:
        return
    if not is_known_origin(gateway, origin):
        raise OriginRefused(f"origin {origin[:128]!r} is neither loopback nor listed in allowed_origins")


def is_known_origin(gateway: Gateway, origin: str) -> bool:
    """Whether a page from there may use the gateway: one that is listed; one of this machine, where it is open."""
    if gateway.is_open and is_loopback(_named(_ORIGIN, origin)):
        return True
    return _is_listed(gateway.allowed_origins, origin)


def _named(pattern: re.Pattern[str], header: str) -> str:
    """The host without its port; empty if the header is none such."""
    found = pattern.fullmatch(header)
    return (found["address"] or found["name"]) if found else ""


def _is_listed(allowed: Iterable[str], *names: str) -> bool:
    return any(entry in {"*", *(name.lower() for name in names)} for entry in allowed)


def heartbeat_s(query: Mapping[str, str]) -> float | None:
    """The `?heartbeat=SECONDS` of the URL. Raises BadField."""
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
    """Whether to speak as to a client written for Cloudflare. Raises BadField."""
    value = query.get("compat")
    if value not in {None, "cloudflare"}:
        raise BadField("compat: expected cloudflare")
    return gateway.compat or value is not None
