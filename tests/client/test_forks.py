"""A blocking client that was made before a fork works in the child: gunicorn's preload, Celery, multiprocessing."""

import asyncio
import os
import sys

import pytest

from bridge.client.forks import FORKED
from tests.support.client_harness import serving
from tests.support.event_harness import content
from tests.support.provider_script import SILENCE, ScriptedResponse, answers, streams

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


async def run(program: str, *plays: ScriptedResponse) -> list[str]:
    """The lines that the program prints; its argument is the URL of a bridge."""
    async with serving(*plays) as (url, _, _):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", program, url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                out, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            raise
    assert errors == b""
    return out.decode().splitlines()


CHILD_AND_PARENT = """
import os, sys
from bridge.client.sync import connect

bridge = connect(sys.argv[1])
ask = lambda: bridge.request("openai", "chat/completions", {}).response
print("before", ask(), flush=True)
if os.fork() == 0:
    print("child", ask(), flush=True)
    bridge.close()
    sys.exit()
os.wait()
print("parent", ask(), flush=True)
bridge.close()
"""


async def test_the_child_and_the_parent_each_have_a_socket() -> None:
    lines = await run(CHILD_AND_PARENT, *[answers()] * 3)
    assert lines == [f"{who} {{'ok': True}}" for who in ("before", "child", "parent")]


BEGUN_BEFORE = """
import os, sys
from bridge.client import ConnectionLost
from bridge.client.sync import connect

bridge = connect(sys.argv[1])
stream = bridge.stream("openai", "chat/completions", {}).open()
if os.fork() == 0:
    try:
        next(stream)
    except ConnectionLost as error:
        print(error, flush=True)
    stream.close()
    del stream
    sys.exit()
os.wait()
print(next(stream).text, flush=True)
"""


async def test_a_stream_that_was_begun_before_a_fork_is_the_parents() -> None:
    """The child is told so at once, and ends nothing of it."""
    lines = await run(BEGUN_BEFORE, streams(content("a"), SILENCE))
    assert lines == [FORKED, "a"]


THREADS = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from bridge.client.sync import connect

bridge = connect(sys.argv[1])
made = bridge._connections.made
held = threading.Event()

def hold():
    with made.portal._closing, bridge._connections._locks[0]:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
if os.fork() == 0:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(bridge.request, "openai", "chat/completions", {}) for _ in range(4)]
    print([each.result().response for each in asked], flush=True)
    print([thread.name for thread in threading.enumerate()].count("bridge client"), flush=True)
    os._exit(0)
os.wait()
os._exit(0)
"""


async def test_a_fork_while_another_thread_holds_every_lock_stops_nothing() -> None:
    """And the threads of the child share one socket."""
    assert await run(THREADS, *[answers()] * 4) == [str([{"ok": True}] * 4), "1"]


CLOSED_BEFORE = """
import os, sys
from bridge.client import ConnectionLost
from bridge.client.sync import connect

bridge = connect(sys.argv[1])
bridge.close()
if os.fork() == 0:
    try:
        bridge.request("openai", "chat/completions", {})
    except ConnectionLost as error:
        print(error, flush=True)
    sys.exit()
os.wait()
"""


async def test_a_client_that_was_closed_before_a_fork_stays_closed() -> None:
    assert await run(CLOSED_BEFORE) == ["this client closed the socket"]


ASKS_NOTHING = """
import os, sys
from bridge.client.sync import connect

bridge = connect(sys.argv[1])
if os.fork() == 0:
    bridge.close()
    os._exit(0)
os.wait()
print(bridge.request("openai", "chat/completions", {}).response, flush=True)
"""


async def test_a_child_that_asks_nothing_leaves_the_parents_socket_alone() -> None:
    assert await run(ASKS_NOTHING, answers()) == ["{'ok': True}"]
