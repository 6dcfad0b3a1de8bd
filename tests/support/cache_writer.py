"""Store answers in a cache file until the process is killed, and print the number of each."""

import asyncio
import sys
from pathlib import Path

from bridge.services.cache.sqlite import open_sqlite_store
from tests.support.stored_answers import KEYS, stored


async def write(path: Path) -> None:
    async with open_sqlite_store(path, 1 << 30) as store:
        for round_ in range(1_000_000):
            for number, key in enumerate(KEYS):
                store.put(key, stored(b"%d" % number * 500, b"%d" % round_))
                await store.get(key)  # returns after the thread has stored it
                print(number, flush=True)


asyncio.run(write(Path(sys.argv[1])))
