"""Build the services of a configuration, register their metrics, and close them in reverse order."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bridge.config import ConfigError, Configuration, Problem
from bridge.policy.breaker import Breakers
from bridge.relay.interfaces import Pricer, Sample, Services
from bridge.services.cache import cache
from bridge.services.cache import sqlite as sqlite_cache
from bridge.services.cache.cache import ResponseCache
from bridge.services.cache.stored import Store
from bridge.services.keys.google_oauth import GoogleTokens
from bridge.services.keys.signing import StoredKeys
from bridge.services.limits.ledger import SpendLedger
from bridge.services.limits.limiter import GatewayLimiter, has_budgets
from bridge.services.limits.local import LocalBudgets, LocalRates
from bridge.services.limits.stored_budgets import stored_budgets
from bridge.services.metrics import definitions
from bridge.services.metrics.metrics import Metrics
from bridge.services.metrics.shared_counters import SharedCounters
from bridge.services.pricing.genai_prices import GenaiPrices
from bridge.services.pricing.pricer import EventPricer
from bridge.services.request_log import log as request_log
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.log import RequestLog
from bridge.services.tracing.tracing import MISSING_EXTRA, Tracing
from bridge.settings.server import ServerSettings
from bridge.upstream.http import Upstream
from bridge.upstream.transport import HttpTransport

if TYPE_CHECKING:
    from bridge.services.redis import RedisStore


@asynccontextmanager
async def build_services(config: Configuration, shared: Path | None = None) -> AsyncIterator[Services]:
    """Build all services.

    `shared` is the folder shared by the workers of one supervisor. Raises ConfigError for a configured service that
    cannot be provided.
    """
    async with AsyncExitStack() as stack:
        store = await _shared_store(config, stack)
        tokens = GoogleTokens(lambda: Upstream(HttpTransport()))
        stack.push_async_callback(tokens.aclose)
        metrics = _metrics(config, shared, stack)
        log = await _request_log(config, stack)
        tracing = _tracing(config, stack)
        response_cache = await _cache(config, store, stack)
        if metrics is not None:
            _register_samples(metrics, log, tracing, response_cache, store)
        pricer = EventPricer(await asyncio.to_thread(_price_list))
        yield Services(
            limiter=await _limiter(config, store, pricer, stack),
            cache=response_cache,
            breakers=await _breakers(store, stack),
            keys=StoredKeys(tokens),
            pricer=pricer,
            meter=metrics,
            observers=tuple(observer for observer in (metrics, log, tracing) if observer is not None),
            payload_bytes=config.server.log_payload_bytes if log else 0,
        )


async def _shared_store(config: Configuration, stack: AsyncExitStack) -> "RedisStore | None":
    """Open the configured Redis, whether or not it is reachable."""
    redis_url = config.server.redis_url
    if redis_url is None:
        return None
    try:
        from bridge.services.redis import opened
    except ImportError:
        raise _unusable("redis_url", "install the extra redis: pip install 'universal-bridge[redis]'") from None
    try:
        timeout_s = config.server.redis_timeout / 1000
        return await stack.enter_async_context(opened(redis_url.url, config.server.redis_prefix, timeout_s))
    except ValueError:
        raise _unusable("redis_url", f"the Redis client rejects the URL {redis_url}") from None


async def _limiter(
    config: Configuration, store: "RedisStore | None", pricer: Pricer, stack: AsyncExitStack
) -> GatewayLimiter:
    """Build the limiter. It always exists, because a reload may add limits."""
    rates = LocalRates()
    if store is None:
        return GatewayLimiter(rates, await _budgets(config, stack), pricer)
    from bridge.services.limits.redis_budgets import redis_budgets
    from bridge.services.limits.redis_rates import RedisRates

    return GatewayLimiter(RedisRates(store, rates), await stack.enter_async_context(redis_budgets(store)), pricer)


async def _budgets(config: Configuration, stack: AsyncExitStack) -> LocalBudgets:
    path = _budgets_path(config.server)
    if path is None:
        return LocalBudgets(SpendLedger())
    try:
        return await stack.enter_async_context(stored_budgets(path, is_needed=has_budgets(config)))
    except OSError as error:
        if config.server.budgets_path is not None:
            raise _unusable("budgets_path", f"{path} cannot be used: {error.strerror}") from None
        logging.getLogger("bridge.budgets").error(
            "budget file %s cannot be used; a restart loses the recorded spending: %s", path, error.strerror
        )
        return LocalBudgets(SpendLedger())


def _budgets_path(server: ServerSettings) -> Path | None:
    """Return the budget file. It is not the log's own file: budgets must outlive a damaged or removed log."""
    if server.budgets_path is not None or server.log_path is None:
        return server.budgets_path
    return server.log_path.with_name(f"budgets-{server.log_path.name}")


async def _cache(config: Configuration, redis: "RedisStore | None", stack: AsyncExitStack) -> ResponseCache | None:
    max_bytes = config.server.cache_bytes
    if not max_bytes:
        return None
    return await stack.enter_async_context(cache.open_cache(max_bytes, await _cache_store(config, redis, stack)))


async def _cache_store(config: Configuration, redis: "RedisStore | None", stack: AsyncExitStack) -> Store | None:
    """Open the cache file if one is configured, otherwise use Redis."""
    path = config.server.cache_path
    if path is not None:
        try:
            return await stack.enter_async_context(sqlite_cache.open_sqlite_store(path, config.server.cache_file_bytes))
        except OSError as error:
            raise _unusable("cache_path", f"{path} cannot be used: {error.strerror}") from None
    if redis is None:
        return None
    from bridge.services.cache import redis as redis_cache

    return await stack.enter_async_context(redis_cache.open_redis_store(redis))


async def _breakers(store: "RedisStore | None", stack: AsyncExitStack) -> Breakers:
    if store is None:
        return Breakers()
    from bridge.services.redis_breakers import redis_breakers

    return await stack.enter_async_context(redis_breakers(store))


def _metrics(config: Configuration, shared: Path | None, stack: AsyncExitStack) -> Metrics | None:
    if not config.server.metrics:
        return None
    metrics = Metrics(SharedCounters(shared))
    stack.callback(metrics.close)
    if shared is not None:
        metrics.publish_often()
    return metrics


async def _request_log(config: Configuration, stack: AsyncExitStack) -> RequestLog | None:
    path = config.server.log_path
    if path is None:
        return None
    try:
        return await stack.enter_async_context(request_log.open_request_log(path, config.server.log_days))
    except LogUnusable as error:
        raise _unusable("log_path", str(error)) from None


def _price_list() -> GenaiPrices | None:
    """Load the price list of the extra `cost` if it is installed; takes a quarter of a second."""
    try:
        return GenaiPrices()
    except ImportError:
        return None


def _tracing(config: Configuration, stack: AsyncExitStack) -> Tracing:
    tracing = Tracing(os.environ)
    exporting = [name for name, gateway in config.gateways.items() if gateway.otel]
    if exporting or tracing.everywhere:
        try:
            tracing.start()
        except ImportError:
            if exporting:
                raise _unusable(f"gateways.{exporting[0]}.otel", MISSING_EXTRA) from None
            logging.getLogger("bridge.traces").warning("OTEL_EXPORTER_OTLP_ENDPOINT is set: %s", MISSING_EXTRA)
        except ValueError as error:
            raise _unusable("OTEL_EXPORTER_OTLP_…", str(error)) from None
    stack.push_async_callback(tracing.close)
    return tracing


def _register_samples(
    metrics: Metrics,
    log: RequestLog | None,
    tracing: Tracing,
    response_cache: ResponseCache | None,
    store: "RedisStore | None",
) -> None:
    metrics.register(tracing.samples)
    if log is not None:
        metrics.register(log.samples)
    if response_cache is not None:
        metrics.register(partial(cache_samples, response_cache))
    if store is not None:
        metrics.register(partial(redis_samples, store))


class RecordingQueue(Protocol):
    unwritten: int


def cache_samples(cache: ResponseCache) -> Iterator[Sample]:
    """Yield the cache's counters as metrics."""
    for result, count in (("hit", cache.hits), ("joined", cache.coalesced), ("miss", cache.misses)):
        yield definitions.CACHE_LOOKUPS.name, (result,), count
    yield definitions.CACHE_BYTES.name, (), cache.stored_bytes
    yield definitions.CACHE_EVICTIONS.name, (), cache.evictions
    yield definitions.CACHE_FAULTS.name, (), cache.faults


def redis_samples(store: "RedisStore") -> Iterator[Sample]:
    """Yield the state of Redis and its failures as metrics."""
    yield definitions.REDIS_LOST.name, (), not store.is_up
    yield definitions.REDIS_LOSSES.name, (), store.losses
    yield definitions.REDIS_FAILED.name, (), store.failed_calls


def tape_samples(queue: RecordingQueue) -> Iterator[Sample]:
    """Yield the number of recordings that wait to be written."""
    yield definitions.TAPES_WAITING.name, (), queue.unwritten


def _unusable(key: str, why: str) -> ConfigError:
    return ConfigError([Problem(key, None, why)])
