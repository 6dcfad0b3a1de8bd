"""The Redis connection of a process. Redis may become unavailable at any time; no event waits for it.

Every feature that stores data in Redis also works without it. A failed command raises `RedisDown`, and so does, at
once, every later command until a background task reaches Redis again:

    up ──a command fails──▶ suspect ──a check succeeds──▶ up
                               └───────a check fails──────▶ lost (logged) ──▶ up (logged)

While Redis is suspect or lost, only checks are sent. Redis Cluster is not supported.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from bridge.policy.backoff import next_delay_s
from bridge.tasks import Tasks

log = logging.getLogger("bridge.redis")

COMMAND_S: Final = 0.25
"""The default time limit of a command, including the time to open a connection for it."""
CONNECTIONS: Final = 64
"""The maximum number of connections; further commands wait for one within their time limit."""
CHECK_S: Final = 5.0
"""Interval of availability checks, which keep `is_up` correct when no command is sent."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 3.0
"""Pauses between reconnection attempts; each is up to twice as long as the one before."""
SCHEMA: Final = 1
"""Version of the stored data, part of every key. Keys of other versions are not read, and expire."""

T = TypeVar("T")


class RedisDown(Exception):
    """Raised when a command failed or its result is unknown. The caller continues without Redis."""


class RedisStore:
    """Redis client with time limits and an availability state. `opened` creates one."""

    def __init__(self, url: str, prefix: str, command_s: float = COMMAND_S) -> None:
        """Create the client.

        Raises ValueError for an invalid URL; its message may contain parts of the URL.
        """
        self._command_s = command_s
        self._prefix = f"{prefix}:{SCHEMA}:"
        self._redis = _client(url)
        self._tasks = Tasks()
        self._suspect = asyncio.Event()
        self._available = asyncio.Event()
        self._last_refusal = ""
        self.losses = 0
        """Number of times that Redis was lost. A metric, like the next one."""
        self.failed_calls = 0
        """Commands that failed or were not sent because Redis was unavailable."""

    @property
    def is_up(self) -> bool:
        return self._available.is_set()

    def key(self, *parts: str) -> str:
        """Return a key with the prefix of this bridge."""
        return self._prefix + ":".join(parts)

    async def call(self, make: Callable[["Redis"], Awaitable[T]]) -> T:
        """Await the command, pipeline or script that `make` returns, and nothing else. Raises RedisDown."""
        if not self.is_up:
            self.failed_calls += 1
            raise RedisDown("Redis is down")
        try:
            async with asyncio.timeout(self._command_s):
                return await make(self._redis)
        except (RedisError, OSError) as error:
            self.failed_calls += 1
            self._mark_suspect(error)
            raise RedisDown(_reason(error)) from error

    def script(self, lua: str) -> Callable[[Sequence[str], Sequence[Any]], Awaitable[Any]]:
        """Register a script and return a function that runs it with keys and arguments and raises RedisDown."""
        registered = self._redis.register_script(lua)

        async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
            return await self.call(lambda _: registered(keys, args))

        return run

    async def subscribe(
        self, channel: str, joined: Callable[[], Awaitable[None]], receive: Callable[[bytes], None]
    ) -> None:
        """Await `joined`, then pass each message of a channel to `receive`. Raises RedisDown when Redis is lost."""
        losses = self.losses
        try:
            async with self._redis.pubsub() as subscription:
                await subscription.subscribe(channel)
                while losses == self.losses:
                    message = await subscription.get_message(timeout=CHECK_S)
                    if message is not None and message["type"] == "message":
                        receive(message["data"])
                    elif message is not None:
                        await joined()
        except (RedisError, OSError) as error:
            self._mark_suspect(error)
        raise RedisDown("Redis is down")

    async def wait_available(self) -> None:
        """Return when Redis is available, at once if it already is."""
        await self._available.wait()

    async def open(self) -> None:
        """Check availability once, for at most two command times, and start the background task."""
        error = await self._check_alive()
        if error is None:
            self._available.set()
        self._tasks.start(self._watch(error), "redis watch")

    async def close(self) -> None:
        await self._tasks.cancel_all()
        self._available.clear()
        await self._redis.aclose()

    def _mark_suspect(self, error: Exception) -> None:
        """Stop sending commands until a check succeeds."""
        if isinstance(error, ResponseError):  # Redis responds, but refuses the command
            self._log_once(_reason(error))
        self._available.clear()
        self._suspect.set()

    async def _watch(self, error: Exception | None) -> None:
        while True:
            if error is not None:
                await self._lose(error)
                await self._search()
            self._suspect.clear()
            self._available.set()
            await self._next_check()
            error = await self._check_alive()

    async def _next_check(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await self._suspect.wait()

    async def _check_alive(self) -> Exception | None:
        """Return the error of an availability check, None if it succeeds.

        The check is a write: a full Redis or a replica is unusable here. After a timeout it is repeated once, because
        this process's own loop may have been busy.
        """
        for _ in range(2):
            try:
                async with asyncio.timeout(self._command_s):
                    await self._redis.set(self.key("alive"), b"", px=1000)
                return None
            except TimeoutError as error:
                failed: Exception = error
            except (RedisError, OSError) as error:
                return error
        return failed

    async def _lose(self, error: Exception) -> None:
        self._available.clear()
        self.losses += 1
        log.warning(
            "Redis unreachable; limits, cache and breakers are per-process until it recovers",
            extra={"fields": {"reason": _reason(error)}},
        )
        # An idle connection may be dead without notice, and each would cost the search a timeout.
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _search(self) -> None:
        started_at, pause_s, fraction = time.monotonic(), FIRST_PAUSE_S, random.random
        while True:
            await asyncio.sleep(pause_s * (0.5 + fraction() / 2))  # jitter against a thundering herd
            if await self._check_alive() is None:
                break
            pause_s = next_delay_s(pause_s, FIRST_PAUSE_S, LAST_PAUSE_S)
        log.info("Redis reachable again", extra={"fields": {"lost_s": round(time.monotonic() - started_at, 1)}})

    def _log_once(self, reason: str) -> None:
        """Log each new reason once: every event may encounter it."""
        if reason != self._last_refusal:
            self._last_refusal = reason
            log.warning("Redis refused a command", extra={"fields": {"reason": reason}})


@asynccontextmanager
async def opened(url: str, prefix: str, command_s: float = COMMAND_S) -> AsyncIterator[RedisStore]:
    """Run a store with its connections and checks. Raises ValueError as `RedisStore` does."""
    store = RedisStore(url, prefix, command_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _client(url: str) -> Redis:
    # `call` alone bounds all waiting, and `_search` alone retries.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # replies are the same in all supported versions
    )
    return Redis.from_pool(pool)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
