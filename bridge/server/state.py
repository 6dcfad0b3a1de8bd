"""The objects that all requests of one server share."""

from dataclasses import dataclass

from bridge.relay.arrivals import Arrivals
from bridge.relay.context import Runtime
from bridge.relay.memory import MemoryBudget
from bridge.server.access import GatewayAccess
from bridge.server.connections import ConnectionRegistry
from bridge.settings.server import ServerSettings


@dataclass(frozen=True, slots=True)
class ServerState:
    """Shared objects of one server; `memory` is the budget of all its connections together."""

    access: GatewayAccess
    runtime: Runtime
    connections: ConnectionRegistry
    memory: MemoryBudget
    arrivals: Arrivals

    @property
    def settings(self) -> ServerSettings:
        """The server's settings in the current configuration, which a reload replaces."""
        return self.access.config.server
