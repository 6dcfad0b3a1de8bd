"""Run a bridge that records realtime sessions, and one that replays their tapes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.replay.socket_connector import TapeConnector
from bridge.server.server import Server
from bridge.tapes.folder import TapeFolder
from bridge.tapes.library import Exhausted, Pace
from bridge.tapes.matching import STRICT, Matching
from bridge.tapes.recorder import RecordingTransport
from bridge.tapes.socket_recorder import RecordingConnector
from bridge.tapes.transport import TapeTransport
from bridge.tapes.writer import RecordingThread
from bridge.upstream.http import Upstream
from bridge.upstream.realtime import Connector
from bridge.upstream.transport import HttpTransport
from tests.support.harness import config_of
from tests.support.socket_provider import Provider, Script


@asynccontextmanager
async def recording_bridge_to(
    script: Script, scratch: Path, folder: TapeFolder, **bounds: int
) -> AsyncIterator[tuple[Server, RecordingThread]]:
    """Run a bridge that records the sessions of its clients with `script`, which is the provider `custom-x`."""
    async with Provider(script) as provider:
        url = f"ws://127.0.0.1:{provider.port}"
        table = f'[providers.custom-x]\nbase_url = "https://unused.example"\nrealtime_base_url = "{url}"\n'
        transport = RecordingTransport(HttpTransport(), folder, **bounds)
        connector = RecordingConnector(Connector(), transport.recording_thread)
        server = Server(config_of(table, scratch), Upstream(transport), connector=connector)
        await server.start()
        try:
            yield server, transport.recording_thread
        finally:
            await server.stop()


@asynccontextmanager
async def recording_bridge(script: Script, scratch: Path, tapes: Path) -> AsyncIterator[Server]:
    async with recording_bridge_to(script, scratch, TapeFolder(tapes)) as (server, _):
        yield server


@asynccontextmanager
async def playing_bridge(
    tapes: Path,
    folder: Path,
    *,
    pace: Pace = "instant",
    matching: Matching = STRICT,
    exhausted: Exhausted = "repeat",
    mismatches: list[str] | None = None,
) -> AsyncIterator[Server]:
    """Run a bridge that replays tapes at the providers' real addresses; `custom-x` has the tapes' first host."""
    transport = TapeTransport(tapes, pace=pace, matching=matching, exhausted=exhausted)
    config = config_of(f'[providers.custom-x]\nbase_url = "http://{transport.library.hosts[0]}"\n', folder)
    connector = TapeConnector(transport.library, [].append if mismatches is None else mismatches.append)
    server = Server(config, Upstream(transport), connector=connector)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
