"""Reload the configuration when one of its files changes or on SIGHUP; an invalid one changes nothing.

Files are polled: a poll takes microseconds, and detects renames, changed symlinks (as with a Kubernetes ConfigMap) and
changes on network file systems alike.
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
"""The interval of polls. A changed file is read once it has not changed for one interval."""

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
"""The server's settings that a reload applies to new connections. The others require a restart."""


FileState = tuple[int, int, int, int] | None
"""Device, inode, size and modification time of a file, after following symlinks; None for a missing file."""
Snapshot = dict[Path, FileState]


@asynccontextmanager
async def reloading(
    config: Configuration, read: Callable[[], Configuration], apply: Callable[[Configuration], None]
) -> AsyncIterator[None]:
    """Reload while the block runs. `read` may block, `apply` must not; both may raise ConfigError."""
    reloader, tasks, loop = Reloader(config, read, apply), Tasks(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.request_reload)
    tasks.start(reloader.run(), "reload")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await tasks.cancel_all()


class Reloader:
    """Polls the files of the current configuration and replaces it."""

    def __init__(
        self, config: Configuration, read: Callable[[], Configuration], apply: Callable[[Configuration], None]
    ) -> None:
        self._config, self._read, self._apply = config, read, apply
        self._known = self._last = _snapshot(config.files)
        self._is_requested = asyncio.Event()

    def request_reload(self) -> None:
        """Reload even if no file has changed."""
        self._is_requested.set()

    async def run(self) -> None:
        while True:
            if await self._wait_for_request() or await self.poll():
                await self.reload()

    async def _wait_for_request(self) -> bool:
        """Wait until the next poll; return True as soon as a reload is requested."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._is_requested.wait()
        except TimeoutError:
            return False
        self._is_requested.clear()
        return True

    async def poll(self) -> bool:
        """Return True if a file has changed, but none since the previous poll."""
        before, self._last = self._last, await asyncio.to_thread(_snapshot, self._known)
        return self._last == before != self._known

    async def reload(self) -> None:
        """Read and apply the configuration. Problems are logged, and the current configuration then stays in use."""
        before = await asyncio.to_thread(_snapshot, self._known)
        try:
            await asyncio.to_thread(_check_files, self._known)
            found = await asyncio.to_thread(self._read)
            config, waiting = apply_reloadable(self._config, found)
            self._apply(config)
        except ConfigError as error:
            self._watch(error.files or before, before)
            for problem in error.problems:
                log.error(problem.render(str(self._config.path) if self._config.path else None))
            log.error("invalid configuration; the current one stays in use")
            return
        self._config = config
        self._watch(config.files, before)
        log.info("reloaded", extra={"fields": {"gateways": len(config.gateways)}})
        for note in config.notes:
            log.warning(note)
        if waiting:
            log.warning("changed settings require a restart: %s", ", ".join(waiting))

    def _watch(self, files: Iterable[Path], before: Snapshot) -> None:
        """Poll these files from now on. `before` is their state before they were read, to detect later changes."""
        now = _snapshot(files)
        self._known = self._last = now | {file: state for file, state in before.items() if file in now}


def apply_reloadable(running: Configuration, found: Configuration) -> tuple[Configuration, list[str]]:
    """Return the part of `found` that can be applied now, and the names of the server's settings that need a restart.

    Raises ConfigError for a gateway that would be open to other machines at the current address, and for a gateway that
    would lose all its tokens, as a truncated or empty file would have it.
    """
    waiting = [name for name in _changed(running.server, found.server) if name not in RELOADABLE]
    if (running.server.tls_cert is None) != (found.server.tls_cert is None):
        waiting += ["tls_cert", "tls_key"]
    kept: dict[str, Any] = {name: getattr(running.server, name) for name in waiting}
    config = replace(found, server=replace(found.server, **kept))
    report = Report({})
    check_open(report, config.server, {"host": Location("server.host")}, config.gateways)
    for name in _opened(running, found):
        report.add(Location(f"gateways.{name}"), "requires tokens and would become open; restart the bridge to open it")
    if report.problems:
        raise ConfigError(report.problems, found.files)
    return config, waiting


def _opened(running: Configuration, found: Configuration) -> list[str]:
    """Return the names of gateways that require a token now and would not after the reload."""
    names = dict.fromkeys((*running.gateways, *found.gateways))
    return [name for name in names if _is_open(found, name) and not _is_open(running, name) and running.gateway(name)]


def _is_open(config: Configuration, name: str) -> bool:
    gateway = config.gateway(name)
    return gateway is not None and gateway.is_open


def _changed(before: ServerSettings, after: ServerSettings) -> list[str]:
    names = (field.name for field in fields(ServerSettings))
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _check_files(files: Iterable[Path]) -> None:
    """Refuse pipes, whose content can be read once only, and which may block for ever. Raises ConfigError."""
    pipes = [file for file in files if _is_pipe(file)]
    if pipes:
        raise ConfigError([Problem("", None, f"{file} is a pipe, which is read once") for file in pipes], files)


def _is_pipe(file: Path) -> bool:
    try:
        return stat.S_ISFIFO(file.stat().st_mode)
    except OSError:
        return False


def _snapshot(files: Iterable[Path]) -> Snapshot:
    return {file: _state(file) for file in files}


def _state(file: Path) -> FileState:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
