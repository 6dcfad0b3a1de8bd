"""A bridge that records sessions, and one that plays their tapes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.realtime.replaying import TapeDialler
from bridge.server import Server
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Dialler
from bridge.upstream.recording import RecordingTransport
from bridge.upstream.socket_recording import RecordingDialler
from bridge.upstream.tape import TapeTransport
from bridge.upstream.tape_desk import Desk
from bridge.upstream.tape_folder import TapeFolder
from bridge.upstream.tape_library import Exhausted, Pace
from bridge.upstream.tape_match import STRICT, Matching
from bridge.upstream.transport import AiohttpTransport
from tests.harness import config_of
from tests.upstream.provider import Provider, Script


@asynccontextmanager
async def recorded_by(
    script: Script, scratch: Path, folder: TapeFolder, **bounds: int
) -> AsyncIterator[tuple[Server, Desk]]:
    """A bridge that records what its clients and `script` say, who is `custom-x`."""
    async with Provider(script) as provider:
        url = f"ws://127.0.0.1:{provider.port}"
        table = f'[providers.custom-x]\nbase_url = "https://unused.example"\nrealtime_base_url = "{url}"\n'
        transport = RecordingTransport(AiohttpTransport(), folder, **bounds)
        dialler = RecordingDialler(Dialler(), transport.desk)
        server = Server(config_of(table, scratch), Upstream(transport), dialler=dialler)
        await server.start()
        try:
            yield server, transport.desk
        finally:
            await server.stop()


@asynccontextmanager
async def recorded(script: Script, scratch: Path, tapes: Path) -> AsyncIterator[Server]:
    async with recorded_by(script, scratch, TapeFolder(tapes)) as (server, _):
        yield server


@asynccontextmanager
async def playing(
    tapes: Path,
    folder: Path,
    *,
    pace: Pace = "instant",
    matching: Matching = STRICT,
    exhausted: Exhausted = "repeat",
    strayed: list[str] | None = None,
) -> AsyncIterator[Server]:
    """At the addresses of the providers themselves. `custom-x` is the one at the tapes' first host."""
    transport = TapeTransport(tapes, pace=pace, matching=matching, exhausted=exhausted)
    config = config_of(f'[providers.custom-x]\nbase_url = "http://{transport.library.hosts[0]}"\n', folder)
    dialler = TapeDialler(transport.library, [].append if strayed is None else strayed.append)
    server = Server(config, Upstream(transport), dialler=dialler)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
