"""The one Redis of a process, which may be lost at any moment without anybody waiting for it.

Everybody who keeps something in Redis also has a local way. A command that fails raises `RedisDown`, and so does, at
once, every later one until a task of our own has found Redis again:

    up ──a command fails──▶ doubted ──it answers at once──▶ up
                               └───────it does not───────▶ lost, which is logged ──▶ up, which is logged

While it is doubted or lost, nothing is sent on anybody's behalf. Redis Cluster is not spoken.
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

from bridge.tasks import Tasks

log = logging.getLogger("bridge.redis")

COMMAND_S: Final = 0.25
"""How long one command may take where nobody says otherwise, with the connection that may have to be made for it."""
CONNECTIONS: Final = 64
"""At most so many at once; more commands wait for one, within their time."""
CHECK_S: Final = 5.0
"""How often it is asked for a sign of life, so that `is_up` is true though nobody used it."""
FIRST_PAUSE_S: Final = 0.1
LAST_PAUSE_S: Final = 3.0
"""Between two attempts to find it again; each is up to twice as long as the one before."""
SCHEMA: Final = 1
"""Of what is stored, as a part of every key: with another one, older keys are not read, and expire."""

T = TypeVar("T")


class RedisDown(Exception):
    """What was asked was not done, or nobody knows whether it was: go on without Redis."""


class RedisStore:
    """Redis, as the rest of the bridge uses it. `opened` makes one."""

    def __init__(self, url: str, prefix: str, command_s: float = COMMAND_S) -> None:
        """Raises ValueError for a URL that is none; its message may hold parts of it."""
        self._command_s = command_s
        self._prefix = f"{prefix}:{SCHEMA}:"
        self._redis = _client(url)
        self._tasks = Tasks()
        self._doubted = asyncio.Event()
        self._found = asyncio.Event()
        self._complaint = ""
        self.losses = 0
        """How often it was lost. For metrics, as is the next one."""
        self.failed_calls = 0
        """Those that failed, or were not tried because it was down."""

    @property
    def is_up(self) -> bool:
        return self._found.is_set()

    def key(self, *parts: str) -> str:
        """A key of ours."""
        return self._prefix + ":".join(parts)

    async def call(self, make: Callable[["Redis"], Awaitable[T]]) -> T:
        """What `make` awaits, which is a command, a pipeline or a script, and nothing else. Raises RedisDown."""
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
        """Registers a script, once; what is returned runs it with its keys and arguments, and raises RedisDown."""
        registered = self._redis.register_script(lua)

        async def run(keys: Sequence[str], args: Sequence[Any]) -> Any:
            return await self.call(lambda _: registered(keys, args))

        return run

    async def subscribe(
        self, channel: str, joined: Callable[[], Awaitable[None]], take: Callable[[bytes], None]
    ) -> None:
        """Gives `take` each message of a channel, after `joined` has been awaited, until Redis is lost: RedisDown."""
        losses = self.losses
        try:
            async with self._redis.pubsub() as hearing:
                await hearing.subscribe(channel)
                while losses == self.losses:
                    message = await hearing.get_message(timeout=CHECK_S)
                    if message is not None and message["type"] == "message":
                        take(message["data"])
                    elif message is not None:
                        await joined()
        except (RedisError, OSError) as error:
            self._mark_suspect(error)
        raise RedisDown("Redis is down")

    async def wait_available(self) -> None:
        """Returns when it is up, at once if it is."""
        await self._found.wait()

    async def open(self) -> None:
        """Whether or not Redis is there; asked once, which takes no longer than two commands."""
        error = await self._check_alive()
        if error is None:
            self._found.set()
        self._tasks.start(self._watch(error), "redis watch")

    async def close(self) -> None:
        await self._tasks.cancel_all()
        self._found.clear()
        await self._redis.aclose()

    def _mark_suspect(self, error: Exception) -> None:
        """Nothing more is asked of it until it has given a sign of life."""
        if isinstance(error, ResponseError):  # it lives, but will not do what we ask
            self._log_once(_reason(error))
        self._found.clear()
        self._doubted.set()

    async def _watch(self, error: Exception | None) -> None:
        while True:
            if error is not None:
                await self._lose(error)
                await self._search()
            self._doubted.clear()
            self._found.set()
            await self._next_check()
            error = await self._check_alive()

    async def _next_check(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await self._doubted.wait()

    async def _check_alive(self) -> Exception | None:
        """Why there is none. It is a write: a Redis that is full, or has become a replica, is of no use to us.

        What came too late is asked for once more: it may have been our own loop that was busy.
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
        self._found.clear()
        self.losses += 1
        log.warning(
            "redis is lost: limits, cache and breakers are this process's own until it is back",
            extra={"fields": {"reason": _reason(error)}},
        )
        # One that is idle may be dead without knowing it, and each would cost the search a timeout.
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _search(self) -> None:
        began_at, pause_s, chance = time.monotonic(), FIRST_PAUSE_S, random.random
        while True:
            await asyncio.sleep(pause_s * (0.5 + chance() / 2))  # many processes lost it at the same moment
            if await self._check_alive() is None:
                break
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        log.info("redis is back", extra={"fields": {"lost_s": round(time.monotonic() - began_at, 1)}})

    def _log_once(self, reason: str) -> None:
        """Once for each new reason: every event may meet it."""
        if reason != self._complaint:
            self._complaint = reason
            log.warning("redis refused a command", extra={"fields": {"reason": reason}})


@asynccontextmanager
async def opened(url: str, prefix: str, command_s: float = COMMAND_S) -> AsyncIterator[RedisStore]:
    """A store with its connections and its watch. Raises ValueError as `SharedStore` does."""
    store = RedisStore(url, prefix, command_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _client(url: str) -> Redis:
    # All waiting is bounded in one place, which is around a command; and who retries is `_search` alone.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # what each of its versions answers alike
    )
    return Redis.from_pool(pool)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
