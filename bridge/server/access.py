"""Resolve the gateway of a request and check its token; used by every protocol that the server speaks."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from aiohttp import web

from bridge.config import Configuration
from bridge.config.gateways import Gateway, Token
from bridge.errors import UnknownGateway
from bridge.policy.token_filter import token_as_key, token_as_key_protocol
from bridge.relay.plan import RequestContext
from bridge.relay.summary import Transport
from bridge.server.auth import TOKEN_HEADER, check_token, revalidate_token

GATEWAY_PATHS: Final = "/v1/{account}/{gateway}{below:(?:/(?:[^/].*)?)?}"
"""The pattern of every path at or below a gateway. There is one, because aiohttp tries patterns one after the other."""

_ORIGIN: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?]*)?")
"""Matches the origin of a request target in absolute form (RFC 9112, section 3.2.2)."""


class GatewayAccess:
    """Looks up gateways in the current configuration."""

    def __init__(self, config: Configuration) -> None:
        self.config = config
        """The current configuration. A reload replaces it, so it is read again for each request and event."""

    def gateway(self, name: str) -> Gateway:
        """Return the gateway of that name. Raises UnknownGateway."""
        gateway = self.config.gateway(name)
        if gateway is None:
            raise UnknownGateway(f"unknown gateway {name[:64]!r}: define it under [gateways] in the configuration")
        return gateway

    def request_context(
        self, request: web.Request, gateway: Gateway, token: str, transport: Transport
    ) -> RequestContext:
        """Return the context that the request's events run in. `token` is the name of the token that was presented."""
        name = request.match_info["gateway"]
        return RequestContext(
            account=request.match_info["account"],
            gateway=name,
            gateway_at_connect=gateway,
            providers=self.config.providers,
            current_gateway=partial(self._current_gateway, name, gateway.token(token)),
            token=token,
            transport=transport,
            user_agent=request.headers.get("User-Agent", ""),
            traceparent=request.headers.get("traceparent", ""),
        )

    def _current_gateway(self, name: str, presented: Token | None) -> Gateway:
        return revalidate_token(self.gateway(name), presented)


def is_below_gateway(request: web.Request) -> bool:
    """Return True if the path names a provider below a gateway."""
    return request.match_info.get("below", "") not in ("", "/")


def below_gateway(raw_path: str) -> tuple[str, str]:
    """Return provider and endpoint of `/v1/ACCOUNT/GATEWAY/PROVIDER/ENDPOINT?QUERY` as the client wrote them."""
    path, mark, query = _ORIGIN.sub("", raw_path, count=1).partition("?")
    _, _, _, _, provider, *endpoint = path.split("/", 5)
    return provider, "".join((*endpoint, mark, query))


def authenticate_request(headers: Mapping[str, str], gateway: Gateway, offered: Sequence[str] = ()) -> str:
    """Return the name of the token that was presented; empty if the gateway is open.

    The token may be in its own header, in place of a provider's key, or among the subprotocols that were `offered`.
    Raises Unauthorized.
    """
    presented = headers.get(TOKEN_HEADER)
    if presented is None and not gateway.is_open:
        found = token_as_key(gateway, headers) or token_as_key_protocol(gateway, offered)
        if found is not None:
            return found
    return check_token(gateway, presented, offered)
