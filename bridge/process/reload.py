"""The configuration, read again when a file of it changes or SIGHUP asks; one that is wrong changes nothing.

Files are looked at rather than listened to: a look costs microseconds, and sees a rename, a changed symlink (as
Kubernetes swaps a ConfigMap) and a network's file system alike.
"""

import asyncio
import logging
import signal
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from bridge.config import ConfigError, Configuration
from bridge.config.checks import check_open
from bridge.config.problems import Location, Problem, Report
from bridge.settings.server import ServerSettings
from bridge.tasks import Tasks

log = logging.getLogger("bridge.config")

POLL_S: Final = 1.0
"""How often the files are looked at. One that has changed is read once it has stayed as it is for as long."""

RELOADABLE: Final = {
    "allow_open",
    "drain_timeout",
    "log_level",
    "max_buffered_bytes",
    "max_header_bytes",
    "max_headers",
    "max_in_flight",
    "max_json_depth",
    "max_message_bytes",
    "max_sockets",
    "max_steps",
    "metrics_token",
    "peer_timeout",
    "ping_interval",
    "slow_client_timeout",
    "tls_cert",
    "tls_key",
}
"""The settings of the server that reach who connects from now on. The others wait for a restart."""


State = tuple[int, int, int, int] | None
"""What tells one state of a file from another, through all symlinks; None where it is not there."""
Look = dict[Path, State]


@asynccontextmanager
async def reloading(
    config: Configuration, read: Callable[[], Configuration], apply: Callable[[Configuration], None]
) -> AsyncIterator[None]:
    """As long as it is entered. `read` may block; `apply` may not, and both may raise ConfigError."""
    reloader, tasks, loop = Reloader(config, read, apply), Tasks(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.request_reload)
    tasks.start(reloader.run(), "reload")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await tasks.cancel_all()


class Reloader:
    """Knows the configuration that is in force."""

    def __init__(
        self, config: Configuration, read: Callable[[], Configuration], apply: Callable[[Configuration], None]
    ) -> None:
        self._config, self._read, self._apply = config, read, apply
        self._known = self._last = _look(config.files)
        self._asked = asyncio.Event()

    def request_reload(self) -> None:
        """Read it anew, whether or not anything has changed."""
        self._asked.set()

    async def run(self) -> None:
        while True:
            if await self._is_asked() or await self.poll():
                await self.reload()

    async def _is_asked(self) -> bool:
        """Within the time until the next look."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def poll(self) -> bool:
        """Whether a file has changed, and they all have stayed as they are since the last look."""
        before, self._last = self._last, await asyncio.to_thread(_look, self._known)
        return self._last == before != self._known

    async def reload(self) -> None:
        """Whatever is wrong is told in the log."""
        before = await asyncio.to_thread(_look, self._known)
        try:
            await asyncio.to_thread(_check_files, self._known)
            found = await asyncio.to_thread(self._read)
            config, waiting = apply_reloadable(self._config, found)
            self._apply(config)
        except ConfigError as error:
            self._watch(error.files or before, before)
            for problem in error.problems:
                log.error(problem.render(str(self._config.path) if self._config.path else None))
            log.error("the configuration is wrong, and stays as it was")
            return
        self._config = config
        self._watch(config.files, before)
        log.info("reloaded", extra={"fields": {"gateways": len(config.gateways)}})
        for note in config.notes:
            log.warning(note)
        if waiting:
            log.warning("changed, and waiting for a restart: %s", ", ".join(waiting))

    def _watch(self, files: Iterable[Path], before: Look) -> None:
        """From what they were `before` they were read: what has changed meanwhile is another change."""
        now = _look(files)
        self._known = self._last = now | {file: state for file, state in before.items() if file in now}


def apply_reloadable(running: Configuration, found: Configuration) -> tuple[Configuration, list[str]]:
    """What of `found` can be had without a restart, and the names of the server's settings that cannot.

    Raises ConfigError for a gateway that would be open to other machines where the bridge listens now, and for one that
    would lose all its tokens: a file that was cut short, or emptied, reads like that.
    """
    waiting = [name for name in _changed(running.server, found.server) if name not in RELOADABLE]
    if (running.server.tls_cert is None) != (found.server.tls_cert is None):
        waiting += ["tls_cert", "tls_key"]
    kept: dict[str, Any] = {name: getattr(running.server, name) for name in waiting}
    config = replace(found, server=replace(found.server, **kept))
    report = Report({})
    check_open(report, config.server, {"host": Location("server.host")}, config.gateways)
    for name in _opened(running, found):
        report.add(Location(f"gateways.{name}"), "wants tokens, and would be open now: it takes a restart to open it")
    if report.problems:
        raise ConfigError(report.problems, found.files)
    return config, waiting


def _opened(running: Configuration, found: Configuration) -> list[str]:
    """Names at which a token was wanted, and whoever comes would be let in."""
    names = dict.fromkeys((*running.gateways, *found.gateways))
    return [name for name in names if _is_open(found, name) and not _is_open(running, name) and running.gateway(name)]


def _is_open(config: Configuration, name: str) -> bool:
    gateway = config.gateway(name)
    return gateway is not None and gateway.is_open


def _changed(one: ServerSettings, other: ServerSettings) -> list[str]:
    names = (field.name for field in fields(ServerSettings))
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _check_files(files: Iterable[Path]) -> None:
    """Raises ConfigError for a pipe: what it held is gone, and to open one may take for ever."""
    pipes = [file for file in files if _is_pipe(file)]
    if pipes:
        raise ConfigError([Problem("", None, f"{file} is a pipe, which is read once") for file in pipes], files)


def _is_pipe(file: Path) -> bool:
    try:
        return stat.S_ISFIFO(file.stat().st_mode)
    except OSError:
        return False


def _look(files: Iterable[Path]) -> Look:
    return {file: _state(file) for file in files}


def _state(file: Path) -> State:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
