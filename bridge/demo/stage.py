"""Runs the demo: starts a bridge over tapes and plays the scenes with a client on a real socket."""

import asyncio
import sys
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import orjson

from bridge import __version__
from bridge.client import Bridge, CannotConnect, ConnectionLost, Frame, connect
from bridge.config import load
from bridge.demo.scenes import SCENES, STREAM, Played, Scene
from bridge.demo.screen import Screen, screen_on, show_paragraph, show_received, show_sent
from bridge.demo.snippets import Snippets, command, snippets
from bridge.formats.text import text_of
from bridge.logs import format as loglines
from bridge.net import describe_os_error
from bridge.process.signals import shutdown_signal
from bridge.server.server import Server
from bridge.tapes.fault_injection import parse_fault
from bridge.tapes.transport import TapeError, TapeTransport, read_tape
from bridge.upstream.http import Upstream

SCENE_S: Final = 60.0
"""Time limit of a scene."""

PAUSE: Final = parse_fault("stall@chunk:100:5s")
"""Pause in the long tape, so that it is not over before its client cancels. No other tape has as many chunks."""


def demo(*, stay: bool, port: int, pace: float) -> int:
    """Run the demo and return the exit code: 0 only if every scene succeeds."""
    loglines.setup(sys.stderr, "auto", "error")
    with as_file(files("bridge.demo") / "tapes") as folder:
        return play(folder, screen_on(sys.stdout), stay=stay, port=port, pace=pace)


def play(folder: Path, screen: Screen, *, stay: bool, port: int, pace: float) -> int:
    """Run the demo with the tapes of any folder."""
    try:
        return asyncio.run(DemoRunner(folder, screen, pace).run(stay=stay, port=port))
    except OSError as error:
        screen.show(f"cannot listen on 127.0.0.1:{port}: {describe_os_error(error)}")
    except (TapeError, CannotConnect) as error:
        screen.show(str(error))
    return 1


class DemoRunner:
    """Owns the tapes and the screen. `run` may be called once."""

    def __init__(self, folder: Path, screen: Screen, pace: float) -> None:
        self._folder = folder
        self._screen = screen
        self._tapes = TapeTransport(folder, pace=pace, faults=[PAUSE])

    async def run(self, *, stay: bool, port: int) -> int:
        """Play all scenes and return the exit code. Raises OSError if the port is unavailable."""
        server = Server(load(None, {}, {"port": port}), Upstream(self._tapes))
        await server.start()
        try:
            url = f"{server.url}/v1/local/demo"
            self._open(server.url)
            async with connect(url, reconnect=False) as bridge:
                went_well = [await self._scene(number, scene, bridge) for number, scene in enumerate(SCENES, start=1)]
            self._close(all(went_well), stay=stay)
            if stay:
                self._show_snippets(snippets(url, STREAM, command()))
                await shutdown_signal()
        finally:
            await server.stop()
        return 0 if all(went_well) else 1

    async def _scene(self, number: int, scene: Scene, bridge: Bridge) -> bool:
        screen = self._screen
        screen.show((f"{number}  {scene.title}", "bold"))
        show_paragraph(screen, scene.words)
        screen.show()
        problems = await self._problems(scene, bridge)
        if not problems:
            screen.show("   ", (f"✓ {scene.outcome}", "green"))
        for problem in problems:
            screen.show("   ", (f"✗ {problem}", "red"))
        screen.show()
        return not problems

    async def _problems(self, scene: Scene, bridge: Bridge) -> list[str]:
        """Play a scene and return its deviations."""
        try:
            async with asyncio.timeout(SCENE_S):
                return list(scene.check(await self._play(scene, bridge)))
        except TimeoutError:
            return [f"expected the last frame within {SCENE_S:g} s"]
        except (ConnectionLost, TapeError) as error:
            return [str(error)]

    async def _play(self, scene: Scene, bridge: Bridge) -> Played:
        frames: list[Frame] = []
        for step in scene.request if isinstance(scene.request, list) else [scene.request]:
            show_sent(self._screen, "create", orjson.dumps(step).decode())
        async with bridge.create(scene.request) as event:
            async for frame in event:
                frames.append(frame)
                show_received(self._screen, frame)
                if len(frames) == scene.cancel_after:
                    show_sent(self._screen, "cancel", f'{{"eventId":"{event.id}"}}')
                    event.cancel()
        still_playing = self._tapes.playing
        return Played(frames, text_of_frames(frames), text_of_tape(self._folder / f"{scene.tape}.jsonl"), still_playing)

    def _open(self, url: str) -> None:
        self._screen.show()
        self._screen.show((f"Universal Bridge {__version__}", "bold"), f"  {url}")
        self._screen.show("No key, no network: the providers are played from tapes. → is sent, ← is received.")
        self._screen.show()

    def _close(self, went_well: bool, *, stay: bool) -> None:
        if went_well:
            self._screen.show(("All four scenes succeeded.", "bold green"))
        else:
            self._screen.show(("Not all scenes succeeded.", "bold red"))
        if not stay:
            self._screen.show(f"To connect your own client: {command()} demo --stay")

    def _show_snippets(self, how: Snippets) -> None:
        for head, code in (
            ("From a shell", how.shell),
            ("From Python (pip install websockets)", how.python),
            ("From JavaScript: a page of localhost, or Node (npm install ws)", how.javascript),
        ):
            self._screen.show()
            self._screen.show((f"# {head}", "bold"))
            self._screen.show()
            self._screen.write(code)
        self._screen.show()
        self._screen.show("Serving until Ctrl-C.")


def text_of_frames(frames: Sequence[Frame]) -> str:
    """Return the text of an answer."""
    return "".join(text_of(frame.response) or "" for frame in frames if frame.error is None)


def text_of_tape(tape: Path) -> str:
    """Return the text of the answer on a tape, read without the bridge's decoders. Raises TapeError."""
    body = b"".join(chunk.data for chunk in read_tape(tape).chunks)
    lines = [body] if body.startswith(b"{") else body.split(b"\n")
    items: list[Any] = [orjson.loads(line[line.index(b"{") :]) for line in lines if line.startswith((b"data: {", b"{"))]
    return "".join(text_of(item) or "" for item in items)
