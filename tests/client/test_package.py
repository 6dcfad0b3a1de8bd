"""What a user imports, what that costs, and what is left behind."""

import asyncio
import gc
import os
import subprocess
import sys

import bridge.client
import bridge.client.sync
from bridge.client import connect
from tests.support.client_harness import QUERY, serving
from tests.support.provider_script import answers


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_client_brings_neither_the_server_nor_httpx() -> None:
    imported = imported_by("bridge.client.sync")
    assert not {"httpx", "httpcore", "aiohttp.web", "typer", "rich"} & imported
    ours = {name.split(".")[1] for name in imported if name.startswith("bridge.")}
    assert ours == {"client", "errors", "formats", "net", "redact", "tasks"}


def test_every_public_name_is_there() -> None:
    for module in (bridge.client, bridge.client.sync):
        assert set(module.__all__) <= set(dir(module))
        assert sorted(module.__all__, key=str.lower) == sorted(set(module.__all__), key=str.lower)


def test_the_names_of_both_clients_are_the_same() -> None:
    """But for `take`, which is what an iterator is made of."""
    for name in ("Bridge", "Stream", "Exchange", "Event"):
        one, other = getattr(bridge.client, name), getattr(bridge.client.sync, f"Sync{name}")
        public = {each for each in dir(one) if not each.startswith("_")} - {"take"}
        assert public == {each for each in dir(other) if not each.startswith("_")}


async def test_a_hundred_bridges_opened_and_closed_leave_nothing_behind() -> None:
    async with serving(*[answers()] * 101) as (url, _, _):

        async def use() -> None:
            async with connect(url) as bridge:
                await bridge.request("openai", "chat/completions", QUERY)

        await use()
        gc.collect()
        tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
        await asyncio.gather(*[use() for _ in range(100)])
        await asyncio.sleep(0)
        gc.collect()
        assert (len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))) == (tasks, descriptors)
