"""`bridge serve` in processes of its own, from within a test's loop, and clients of it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp

from tests.support.commands import BRIDGE, TIMEOUT_S, environment, url_in
from tests.support.harness import Client


class Bridge:
    """A command that serves. Its log is read as far as a test asks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.log: list[dict[str, Any]] = []

    async def next_log_line(self, begins: str, **fields: object) -> dict[str, Any]:
        """The next line of the log that begins so and has these fields; lines before it are passed over, and kept."""
        assert self.process.stderr is not None
        while written := await asyncio.wait_for(self.process.stderr.readline(), TIMEOUT_S):
            line: dict[str, Any] = json.loads(written)
            self.log.append(line)
            if line["message"].startswith(begins) and fields.items() <= line.items():
                return line
        raise AssertionError(f"no line {begins!r} came, but {self.log}")

    async def remaining_messages(self) -> list[str]:
        """The messages until nobody can write to the log any more: all its processes have ended."""
        assert self.process.stderr is not None
        written = await asyncio.wait_for(self.process.stderr.read(), TIMEOUT_S)
        return [json.loads(line)["message"] for line in written.splitlines()]

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), TIMEOUT_S)

    async def workers(self, count: int) -> dict[int, int]:
        """Pids by number, of those that begin now."""
        lines = [await self.next_log_line("started") for _ in range(count)]
        return {line["worker"]: line["pid"] for line in lines}

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[list[Client]]:
        async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
            dialled = [session.ws_connect(self.url) for _ in range(count)]
            yield [Client(await stack.enter_async_context(each)) for each in dialled]


@asynccontextmanager
async def serving(*args: str, **environ: str) -> AsyncIterator[Bridge]:
    """From its ready line on."""
    process = await asyncio.create_subprocess_exec(
        *BRIDGE,
        *("serve", "--port", "0", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
        start_new_session=True,  # its process group is its own, as a terminal's foreground job's is
    )
    bridge = Bridge(process)
    try:
        assert process.stdout is not None
        bridge.url = url_in((await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode())
        yield bridge
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.communicate()  # workers end with it, and let go of its pipes
