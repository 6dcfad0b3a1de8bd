"""The services that a configuration asks for, put together, and taken down in the opposite order."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.config import ConfigError, Configuration, Problem
from bridge.policy.breaker import Breakers
from bridge.relay.interfaces import Pricer, Services
from bridge.services import readings
from bridge.services.cache import cache
from bridge.services.cache import sqlite as sqlite_cache
from bridge.services.cache.cache import ResponseCache
from bridge.services.cache.stored import Store
from bridge.services.keys.google_oauth import GoogleTokens
from bridge.services.keys.signing import StoredKeys
from bridge.services.limits.ledger import SpendLedger
from bridge.services.limits.limiter import GatewayLimiter, has_budgets
from bridge.services.limits.local import LocalBudgets, LocalRates
from bridge.services.limits.stored_budgets import stored_spendings
from bridge.services.metrics.metrics import Metrics
from bridge.services.metrics.shared_counters import SharedCounters
from bridge.services.pricing.genai_prices import GenaiPrices
from bridge.services.pricing.pricer import EventPricer
from bridge.services.request_log import log as request_log
from bridge.services.request_log.damage import LogUnusable
from bridge.services.request_log.log import RequestLog
from bridge.services.tracing.tracing import MISSING, Tracing
from bridge.settings.server import ServerSettings
from bridge.upstream.http import Upstream
from bridge.upstream.transport import AiohttpTransport

if TYPE_CHECKING:
    from bridge.services.redis import RedisStore


@asynccontextmanager
async def build_services(config: Configuration, shared: Path | None = None) -> AsyncIterator[Services]:
    """`shared` is the folder that the workers of one supervisor have in common. Raises ConfigError for what is
    configured and cannot be had.
    """
    async with AsyncExitStack() as stack:
        store = await _shared_store(config, stack)
        tokens = GoogleTokens(lambda: Upstream(AiohttpTransport()))
        stack.push_async_callback(tokens.aclose)
        meter = _metrics(config, shared, stack)
        log = await _request_log(config, stack)
        traces = _traces(config, stack)
        responses = await _cache(config, store, stack)
        if meter is not None:
            _register_samples(meter, log, traces, responses, store)
        pricer = EventPricer(await asyncio.to_thread(_price_list))
        yield Services(
            limiter=await _limiter(config, store, pricer, stack),
            cache=responses,
            breakers=await _breakers(store, stack),
            keys=StoredKeys(tokens),
            pricer=pricer,
            meter=meter,
            observers=tuple(observer for observer in (meter, log, traces) if observer is not None),
            payload_bytes=config.server.log_payload_bytes if log else 0,
        )


async def _shared_store(config: Configuration, stack: AsyncExitStack) -> "RedisStore | None":
    """The Redis that was asked for, there or not."""
    asked = config.server.redis_url
    if asked is None:
        return None
    try:
        from bridge.services.redis import opened
    except ImportError:
        raise _unusable("redis_url", "needs the extra redis: pip install 'universal-bridge[redis]'") from None
    try:
        timeout_s = config.server.redis_timeout / 1000
        return await stack.enter_async_context(opened(asked.url, config.server.redis_prefix, timeout_s))
    except ValueError:
        raise _unusable("redis_url", f"{asked} is a URL that Redis's client does not take") from None


async def _limiter(
    config: Configuration, store: "RedisStore | None", pricer: Pricer, stack: AsyncExitStack
) -> GatewayLimiter:
    """There is always one, for a reload may bring limits; what has none passes it at once."""
    rates = LocalRates()
    if store is None:
        return GatewayLimiter(rates, await _spendings(config, stack), pricer)
    from bridge.services.limits.redis_budgets import redis_budgets
    from bridge.services.limits.redis_rates import RedisRates

    return GatewayLimiter(RedisRates(store, rates), await stack.enter_async_context(redis_budgets(store)), pricer)


async def _spendings(config: Configuration, stack: AsyncExitStack) -> LocalBudgets:
    path = _budgets_path(config.server)
    if path is None:
        return LocalBudgets(SpendLedger())
    try:
        return await stack.enter_async_context(stored_spendings(path, is_needed=has_budgets(config)))
    except OSError as error:
        if config.server.budgets_path is not None:
            raise _unusable("budgets_path", f"{path} cannot be used: {error.strerror}") from None
        logging.getLogger("bridge.budgets").error(
            "%s cannot be used: a restart will forget what was spent: %s", path, error.strerror
        )
        return LocalBudgets(SpendLedger())


def _budgets_path(server: ServerSettings) -> Path | None:
    """Not the log's own file: budgets must outlive a log that is damaged or removed."""
    if server.budgets_path is not None or server.log_path is None:
        return server.budgets_path
    return server.log_path.with_name(f"budgets-{server.log_path.name}")


async def _cache(config: Configuration, redis: "RedisStore | None", stack: AsyncExitStack) -> ResponseCache | None:
    max_bytes = config.server.cache_bytes
    if not max_bytes:
        return None
    return await stack.enter_async_context(cache.opened(max_bytes, await _cache_store(config, redis, stack)))


async def _cache_store(config: Configuration, redis: "RedisStore | None", stack: AsyncExitStack) -> Store | None:
    """A file of its own, else the Redis that is there anyway."""
    path = config.server.cache_path
    if path is not None:
        try:
            return await stack.enter_async_context(sqlite_cache.opened(path, config.server.cache_file_bytes))
        except OSError as error:
            raise _unusable("cache_path", f"{path} cannot be used: {error.strerror}") from None
    if redis is None:
        return None
    from bridge.services.cache import redis as redis_cache

    return await stack.enter_async_context(redis_cache.opened(redis))


async def _breakers(store: "RedisStore | None", stack: AsyncExitStack) -> Breakers:
    if store is None:
        return Breakers()
    from bridge.services.redis_breakers import redis_breakers

    return await stack.enter_async_context(redis_breakers(store))


def _metrics(config: Configuration, shared: Path | None, stack: AsyncExitStack) -> Metrics | None:
    if not config.server.metrics:
        return None
    meter = Metrics(SharedCounters(shared))
    stack.callback(meter.close)
    if shared is not None:
        meter.publish_often()
    return meter


async def _request_log(config: Configuration, stack: AsyncExitStack) -> RequestLog | None:
    path = config.server.log_path
    if path is None:
        return None
    try:
        return await stack.enter_async_context(request_log.opened(path, config.server.log_days))
    except LogUnusable as error:
        raise _unusable("log_path", str(error)) from None


def _price_list() -> GenaiPrices | None:
    """Of the extra `cost`, where it is installed; a quarter of a second's work."""
    try:
        return GenaiPrices()
    except ImportError:
        return None


def _traces(config: Configuration, stack: AsyncExitStack) -> Tracing:
    traces = Tracing(os.environ)
    asking = [name for name, gateway in config.gateways.items() if gateway.otel]
    if asking or traces.everywhere:
        try:
            traces.start()
        except ImportError:
            if asking:
                raise _unusable(f"gateways.{asking[0]}.otel", MISSING) from None
            logging.getLogger("bridge.traces").warning("OTEL_EXPORTER_OTLP_ENDPOINT is set: %s", MISSING)
        except ValueError as error:
            raise _unusable("OTEL_EXPORTER_OTLP_…", str(error)) from None
    stack.push_async_callback(traces.close)
    return traces


def _register_samples(
    metrics: Metrics,
    log: RequestLog | None,
    traces: Tracing,
    responses: ResponseCache | None,
    store: "RedisStore | None",
) -> None:
    metrics.register(traces.samples)
    if log is not None:
        metrics.register(log.samples)
    if responses is not None:
        metrics.register(partial(readings.cache_samples, responses))
    if store is not None:
        metrics.register(partial(readings.redis_samples, store))


def _unusable(key: str, why: str) -> ConfigError:
    return ConfigError([Problem(key, None, why)])
