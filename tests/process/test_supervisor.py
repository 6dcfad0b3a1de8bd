"""Supervise workers, which are small scripts here: waits are bounded and requests are not lost."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.process.listeners import Listeners
from bridge.process.supervisor import FIRST_PAUSE_S, LAST_PAUSE_S, STEADY_S, Supervisor, WorkerFailed, _pause_s
from bridge.process.worker import this_worker

LISTENS = """
import asyncio, os, signal
from pathlib import Path
from bridge.process.worker import this_worker
worker = this_worker(os.environ)
async def listens():
    worker.notify_ready(asyncio.get_running_loop().create_future())
"""
MUTE = "import time; time.sleep(60)"
STUBBORN = f"{LISTENS}\nasyncio.run(listens())\nimport time; time.sleep(60)"
RELOADS = f"""{LISTENS}
signal.signal(signal.SIGHUP, lambda *_: (worker.folder / "reloaded").touch())
(worker.folder / "begun").touch()
while not (worker.folder / "go").exists(): pass
asyncio.run(listens())
import time; time.sleep(60)
"""


@asynccontextmanager
async def supervisor(script: str, folder: Path) -> AsyncIterator[Supervisor]:
    listeners = Listeners("127.0.0.1", 0)
    made = Supervisor([sys.executable, "-c", script], 1, listeners, str(folder))
    try:
        yield made
    finally:
        await made.stop(0)
        listeners.close()


async def exists(path: Path) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(path.exists):
            pass


async def test_a_worker_that_never_listens_is_killed_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.process.supervisor.START_S", 0.1)
    async with supervisor(MUTE, tmp_path) as made:
        with pytest.raises(WorkerFailed, match="SIGKILL") as failed:
            await made.start()
        assert failed.value.code == 1


async def test_a_worker_that_ends_before_it_listens_gives_its_exit_code(tmp_path: Path) -> None:
    async with supervisor("raise SystemExit(7)", tmp_path) as made:
        with pytest.raises(WorkerFailed) as failed:
            await made.start()
        assert failed.value.code == 7


async def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with supervisor(STUBBORN, tmp_path) as made:
        await made.start()
        await made.stop(0.1)
    assert "workers did not end in time; killing them" in caplog.text


async def test_a_reload_requested_during_a_start_reaches_the_worker_once_it_listens(tmp_path: Path) -> None:
    async with supervisor(RELOADS, tmp_path) as made:
        starting = asyncio.create_task(made.start())
        await exists(tmp_path / "begun")
        made.reload()
        (tmp_path / "go").touch()
        await starting
        await exists(tmp_path / "reloaded")


async def test_a_command_that_cannot_run_is_reported(tmp_path: Path) -> None:
    listeners = Listeners("127.0.0.1", 0)
    made = Supervisor([str(tmp_path / "nothing")], 1, listeners, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        await made.start()
    await made.stop(0)
    listeners.close()


@pytest.mark.parametrize(
    ("lived_s", "pauses_s"),
    [
        (0.0, [FIRST_PAUSE_S, 1.0, 2.0, 4.0, 8.0, 16.0, LAST_PAUSE_S, LAST_PAUSE_S]),
        (STEADY_S, [0.0, 0.0, 0.0]),
    ],
)
def test_workers_that_die_early_are_replaced_with_growing_pauses(lived_s: float, pauses_s: list[float]) -> None:
    pause_s, observed_s = 0.0, []
    for _ in pauses_s:
        pause_s = _pause_s(lived_s, pause_s)
        observed_s.append(pause_s)
    assert observed_s == pauses_s


def test_a_process_that_no_supervisor_started_is_no_worker() -> None:
    assert this_worker({"PATH": os.environ["PATH"]}) is None
