"""The services that a configuration asks for, put together, and taken down in the opposite order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bridge.config import Config
from bridge.relay.services import Services


@asynccontextmanager
async def services_of(config: Config) -> AsyncIterator[Services]:
    """Raises ConfigError for what is configured and cannot be had."""
    async with AsyncExitStack():
        yield Services()
