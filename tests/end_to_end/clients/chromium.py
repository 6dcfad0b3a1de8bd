"""A page in headless Chromium, served on loopback under any host name; its result is returned to the test."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

HERE = Path(__file__).parent

SWITCHES = (
    "--headless",
    "--no-sandbox",  # CI runs as root, and the only page is ours
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """Serves page.html and receives the result of its script. `port` is the port of the origin."""

    def __init__(self) -> None:
        self.port = 0
        self._given: dict[str, Any] = {}
        self._result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def run_script(self, origin: str, profile: Path, **arguments: Any) -> dict[str, Any]:
        """Load the page from this origin, pass `given` to its script and return the result. Call it once."""
        self._given = arguments
        async with asyncio.timeout(90), open_page(f"{origin}/page.html", profile):
            return await self._result

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/page.html", _sends(HERE / "page.html"))
        app.router.add_get("/say.mjs", _sends(HERE / "say.mjs"))
        app.router.add_get("/talk.mjs", _sends(HERE / "talk.mjs"))
        app.router.add_get("/script", self._script)
        app.router.add_post("/result", self._receive_result)
        return app

    async def _script(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._given)

    async def _receive_result(self, request: web.Request) -> web.StreamResponse:
        self._result.set_result(await request.json())
        return web.Response()


def _sends(path: Path) -> Handler:
    text, kind = path.read_text(), {".mjs": "text/javascript", ".html": "text/html"}[path.suffix]

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=kind)

    return handler


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    opened = Page()
    runner = web.AppRunner(opened.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        opened.port = runner.addresses[0][1]
        yield opened
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[None]:
    """Show a page in a browser of its own for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        *SWITCHES,
        f"--user-data-dir={profile}",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
