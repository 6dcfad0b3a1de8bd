"""The services that a configuration asks for, put together, and taken down in the opposite order."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.config import Config, ConfigError, Problem
from bridge.policy.breaker import Breakers
from bridge.policy.ledger import Ledger
from bridge.relay.services import Pricer, Services
from bridge.services import cache, journal, readings
from bridge.services.cache import ResponseCache
from bridge.services.gate import LimitsGate, has_budgets
from bridge.services.gate_local import LocalRates, LocalSpendings
from bridge.services.gate_stored_spendings import stored_spendings
from bridge.services.google_tokens import GoogleTokens
from bridge.services.journal import Journal
from bridge.services.keys import StoredKeys
from bridge.services.metrics import Metrics
from bridge.services.price_list import PriceList
from bridge.services.pricer import PricerOfEvents
from bridge.services.traces import MISSING, Traces
from bridge.settings.server import ServerSettings
from bridge.storage import cache_file
from bridge.storage.cache_answer import Store
from bridge.storage.request_damage import LogUnusable
from bridge.storage.tallies import Tally
from bridge.upstream.http import Upstream
from bridge.upstream.transport import AiohttpTransport

if TYPE_CHECKING:
    from bridge.storage.redis import SharedStore


@asynccontextmanager
async def services_of(config: Config, shared: Path | None = None) -> AsyncIterator[Services]:
    """`shared` is the folder that the workers of one supervisor have in common. Raises ConfigError for what is
    configured and cannot be had.
    """
    async with AsyncExitStack() as stack:
        store = await _shared_store(config, stack)
        tokens = GoogleTokens(lambda: Upstream(AiohttpTransport()))
        stack.push_async_callback(tokens.aclose)
        meter = _meter(config, shared, stack)
        log = await _journal(config, stack)
        traces = _traces(config, stack)
        responses = await _cache(config, store, stack)
        if meter is not None:
            _watch(meter, log, traces, responses, store)
        pricer = PricerOfEvents(await asyncio.to_thread(_price_list))
        yield Services(
            gate=await _gate(config, store, pricer, stack),
            cache=responses,
            breakers=await _breakers(store, stack),
            keys=StoredKeys(tokens),
            pricer=pricer,
            meter=meter,
            observers=tuple(observer for observer in (meter, log, traces) if observer is not None),
            payload_bytes=config.server.log_payload_bytes if log else 0,
        )


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
        patience_s = config.server.redis_timeout / 1000
        return await stack.enter_async_context(opened(asked.url, config.server.redis_prefix, patience_s))
    except ValueError:
        raise _unusable("redis_url", f"{asked} is a URL that Redis's client does not take") from None


async def _gate(config: Config, store: "SharedStore | None", pricer: Pricer, stack: AsyncExitStack) -> LimitsGate:
    """There is always one, for a reload may bring limits; what has none passes it at once."""
    rates = LocalRates()
    if store is None:
        return LimitsGate(rates, await _spendings(config, stack), pricer)
    from bridge.services.gate_shared_rates import SharedRates
    from bridge.services.gate_shared_spendings import shared_spendings

    return LimitsGate(SharedRates(store, rates), await stack.enter_async_context(shared_spendings(store)), pricer)


async def _spendings(config: Config, stack: AsyncExitStack) -> LocalSpendings:
    path = _budgets_path(config.server)
    if path is None:
        return LocalSpendings(Ledger())
    try:
        return await stack.enter_async_context(stored_spendings(path, is_needed=has_budgets(config)))
    except OSError as error:
        if config.server.budgets_path is not None:
            raise _unusable("budgets_path", f"{path} cannot be used: {error.strerror}") from None
        logging.getLogger("bridge.budgets").error(
            "%s cannot be used: a restart will forget what was spent: %s", path, error.strerror
        )
        return LocalSpendings(Ledger())


def _budgets_path(server: ServerSettings) -> Path | None:
    """Not the log's own file: budgets must outlive a log that is damaged or removed."""
    if server.budgets_path is not None or server.log_path is None:
        return server.budgets_path
    return server.log_path.with_name(f"budgets-{server.log_path.name}")


async def _cache(config: Config, redis: "SharedStore | None", stack: AsyncExitStack) -> ResponseCache | None:
    most_bytes = config.server.cache_bytes
    if not most_bytes:
        return None
    return await stack.enter_async_context(cache.opened(most_bytes, await _cache_store(config, redis, stack)))


async def _cache_store(config: Config, redis: "SharedStore | None", stack: AsyncExitStack) -> Store | None:
    """A file of its own, else the Redis that is there anyway."""
    path = config.server.cache_path
    if path is not None:
        try:
            return await stack.enter_async_context(cache_file.opened(path, config.server.cache_file_bytes))
        except OSError as error:
            raise _unusable("cache_path", f"{path} cannot be used: {error.strerror}") from None
    if redis is None:
        return None
    from bridge.storage import cache_redis

    return await stack.enter_async_context(cache_redis.opened(redis))


async def _breakers(store: "SharedStore | None", stack: AsyncExitStack) -> Breakers:
    if store is None:
        return Breakers()
    from bridge.services.shared_breakers import shared_breakers

    return await stack.enter_async_context(shared_breakers(store))


def _meter(config: Config, shared: Path | None, stack: AsyncExitStack) -> Metrics | None:
    if not config.server.metrics:
        return None
    meter = Metrics(Tally(shared))
    stack.callback(meter.close)
    if shared is not None:
        meter.publish_often()
    return meter


async def _journal(config: Config, stack: AsyncExitStack) -> Journal | None:
    path = config.server.log_path
    if path is None:
        return None
    try:
        return await stack.enter_async_context(journal.opened(path, config.server.log_days))
    except LogUnusable as error:
        raise _unusable("log_path", str(error)) from None


def _price_list() -> PriceList | None:
    """Of the extra `cost`, where it is installed; a quarter of a second's work."""
    try:
        return PriceList()
    except ImportError:
        return None


def _traces(config: Config, stack: AsyncExitStack) -> Traces:
    traces = Traces(os.environ)
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


def _watch(
    meter: Metrics, log: Journal | None, traces: Traces, responses: ResponseCache | None, store: "SharedStore | None"
) -> None:
    meter.watch(traces.readings)
    if log is not None:
        meter.watch(log.readings)
    if responses is not None:
        meter.watch(partial(readings.of_cache, responses))
    if store is not None:
        meter.watch(partial(readings.of_redis, store))


def _unusable(key: str, why: str) -> ConfigError:
    return ConfigError([Problem(key, None, why)])
