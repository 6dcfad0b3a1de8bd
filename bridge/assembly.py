"""The services that a configuration asks for, put together, and taken down in the opposite order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from bridge.config import Config, ConfigError, Problem
from bridge.policy.breaker import Breakers
from bridge.relay.services import Services
from bridge.services.google_tokens import GoogleTokens
from bridge.services.keys import StoredKeys
from bridge.upstream.http import Upstream
from bridge.upstream.transport import AiohttpTransport

if TYPE_CHECKING:
    from bridge.storage.redis import SharedStore


@asynccontextmanager
async def services_of(config: Config) -> AsyncIterator[Services]:
    """Raises ConfigError for what is configured and cannot be had."""
    async with AsyncExitStack() as stack:
        store = await _shared_store(config, stack)
        tokens = GoogleTokens(lambda: Upstream(AiohttpTransport()))
        stack.push_async_callback(tokens.aclose)
        yield Services(breakers=await _breakers(store, stack), keys=StoredKeys(tokens))


async def _shared_store(config: Config, stack: AsyncExitStack) -> "SharedStore | None":
    """The Redis that was asked for, there or not."""
    asked = config.server.redis_url
    if asked is None:
        return None
    try:
        from bridge.storage.redis import opened
    except ImportError:
        raise _unusable("redis_url", "needs the extra redis: pip install 'universal-bridge[redis]'") from None
    try:
        return await stack.enter_async_context(opened(asked.url, config.server.redis_prefix))
    except ValueError:
        raise _unusable("redis_url", f"{asked} is a URL that Redis's client does not take") from None


async def _breakers(store: "SharedStore | None", stack: AsyncExitStack) -> Breakers:
    if store is None:
        return Breakers()
    from bridge.services.shared_breakers import shared_breakers

    return await stack.enter_async_context(shared_breakers(store))


def _unusable(key: str, why: str) -> ConfigError:
    return ConfigError([Problem(key, None, why)])
