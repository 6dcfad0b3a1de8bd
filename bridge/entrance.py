"""Which gateway a request is at, and what it may do there: asked at the door of every protocol."""

from functools import partial

from aiohttp import web

from bridge.config import Config
from bridge.config.gateways import Gateway, Token
from bridge.errors import UnknownGateway
from bridge.handshake import still_entitled
from bridge.relay.entry import Transport
from bridge.relay.plan import Ground


class Entrance:
    def __init__(self, config: Config) -> None:
        self.config = config
        """As it is now: for what is looked up per request and per event."""

    def gateway(self, name: str) -> Gateway:
        """Raises UnknownGateway."""
        gateway = self.config.gateway(name)
        if gateway is None:
            raise UnknownGateway(f"there is no gateway {name[:64]!r}: define it under [gateways] in the configuration")
        return gateway

    def ground(self, request: web.Request, gateway: Gateway, token: str, transport: Transport) -> Ground:
        """`token` is the name of the one that was presented."""
        name = request.match_info["gateway"]
        return Ground(
            account=request.match_info["account"],
            gateway=name,
            entered=gateway,
            providers=self.config.providers,
            live=partial(self._live, name, gateway.token(token)),
            token=token,
            transport=transport,
            user_agent=request.headers.get("User-Agent", ""),
            traceparent=request.headers.get("traceparent", ""),
        )

    def _live(self, name: str, presented: Token | None) -> Gateway:
        return still_entitled(self.gateway(name), presented)
