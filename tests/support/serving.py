"""Run `bridge serve` in its own processes from within a test's loop, and connect clients to it."""

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
    """A running `bridge serve`. Its log is read only as far as a test requests."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.log: list[dict[str, Any]] = []

    async def next_log_line(self, prefix: str, **fields: object) -> dict[str, Any]:
        """Return the next line of the log with that prefix and these fields; skip earlier lines, but keep them."""
        assert self.process.stderr is not None
        while written := await asyncio.wait_for(self.process.stderr.readline(), TIMEOUT_S):
            line: dict[str, Any] = json.loads(written)
            self.log.append(line)
            if line["message"].startswith(prefix) and fields.items() <= line.items():
                return line
        raise AssertionError(f"no line {prefix!r} in {self.log}")

    async def remaining_messages(self) -> list[str]:
        """Return the remaining messages of the log, which ends when all processes have ended."""
        assert self.process.stderr is not None
        written = await asyncio.wait_for(self.process.stderr.read(), TIMEOUT_S)
        return [json.loads(line)["message"] for line in written.splitlines()]

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), TIMEOUT_S)

    async def workers(self, count: int) -> dict[int, int]:
        """Wait until `count` workers have started; return their pids by number."""
        lines = [await self.next_log_line("started") for _ in range(count)]
        return {line["worker"]: line["pid"] for line in lines}

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[list[Client]]:
        async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
            sockets = [session.ws_connect(self.url) for _ in range(count)]
            yield [Client(await stack.enter_async_context(socket)) for socket in sockets]


@asynccontextmanager
async def serving(*args: str, **environ: str) -> AsyncIterator[Bridge]:
    """Run `bridge serve`; the block begins after its ready line."""
    process = await asyncio.create_subprocess_exec(
        *BRIDGE,
        *("serve", "--port", "0", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
        start_new_session=True,  # a process group of its own, as a terminal's foreground job has
    )
    bridge = Bridge(process)
    try:
        assert process.stdout is not None
        bridge.url = url_in((await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode())
        yield bridge
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.communicate()  # workers end with it and close its pipes
