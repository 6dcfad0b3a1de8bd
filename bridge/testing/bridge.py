"""A bridge that plays tapes on a background thread's loop, for tests with and without an event loop.

It remembers which tapes have played, because tapes of equal requests play in order. Each test has its own instance.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bridge.client.background_loop import BlockingPortal
from bridge.config import Configuration, load
from bridge.config.problems import ConfigError
from bridge.replay.socket_connector import TapeConnector
from bridge.server.server import Server
from bridge.tapes.fault_injection import parse_fault
from bridge.tapes.transport import Exhausted, Matching, Pace, TapeError, TapeTransport
from bridge.upstream.http import Upstream

PLACE: Final = "/v1/test/test"
"""Account and gateway of its URL; any others work too."""

CONFIG_HINT: Final = (
    "If the provider's base URL comes from your configuration, name that file in the marker: "
    'bridge_tapes(…, config="bridge.toml")'
)
"""Without the configuration custom providers are unknown and built-in ones have their default hosts."""

_NAMED_PACES: Final = ("recorded", "instant")
_EXHAUSTED: Final = ("repeat", "miss")
_SERVER_SETTINGS: Final[Mapping[str, object]] = {"host": "127.0.0.1", "port": 0, "drain_timeout": 0}
"""The drain timeout is 0, so that a finished test does not wait for abandoned events."""


class NotPlayable(ValueError):
    """An argument of `bridge_tapes` is invalid; the message says which."""


class TestBridge:
    """Plays tapes through a bridge. `running` may be called once."""

    def __init__(self, config: Configuration, transport: TapeTransport) -> None:
        self._config = config
        self.hint = transport.library.hint
        """Advice for a miss."""
        self._transport = transport
        self.on_mismatch: list[str] = []
        """Messages about clients' socket messages that differ from the tape."""
        self.missed: list[str] = []
        """Messages about requests that no tape answered."""
        transport.library.on_miss = self.missed.append

    @contextmanager
    def running(self) -> Iterator[str]:
        """Start the bridge on a free loopback port and yield its URL. On exit the bridge and its thread end."""
        portal = BlockingPortal()
        try:
            server = portal.call(self._started())
            try:
                yield server.url + PLACE
            finally:
                portal.call(server.stop())
        finally:
            portal.close()

    async def _started(self) -> Server:
        connector = TapeConnector(self._transport.library, self.on_mismatch.append)
        server = Server(self._config, Upstream(self._transport), connector=connector)
        await server.start()
        return server


def bridge_tapes(
    folders: Iterable[Path],
    *,
    config: Path | None = None,
    pace: Pace = "instant",
    ignore_query: str | Iterable[str] = (),
    ignore_json: str | Iterable[str] = (),
    match_header: str | Iterable[str] = (),
    exhausted: Exhausted = "repeat",
    fault: str | Iterable[str] = (),
) -> TestBridge:
    """Create a bridge. The arguments are those of `bridge serve --replay`; only the providers of `config` are used.

    Raises NotPlayable, and TypeError for arguments of other types.
    """
    _check(pace, exhausted)
    try:
        matching = Matching(_as_tuple(ignore_query), _as_tuple(ignore_json), _as_tuple(match_header))
        faults = [parse_fault(each) for each in _as_tuple(fault)]
        transport = TapeTransport(folders, pace=pace, matching=matching, exhausted=exhausted, faults=faults)
        transport.library.hint = "" if config else CONFIG_HINT
        return TestBridge(_config(config), transport)
    except (TapeError, ConfigError, ValueError) as error:
        raise NotPlayable(str(error)) from None


def _config(path: Path | None) -> Configuration:
    """Return a configuration with one open gateway for all names, independent of the environment."""
    config = load(None, {}, _SERVER_SETTINGS)
    return replace(config, providers=load(path, {}, {}).providers) if path else config


def _check(pace: Pace, exhausted: Exhausted) -> None:
    if pace not in _NAMED_PACES and not (isinstance(pace, int | float) and 0 <= pace < math.inf):
        raise NotPlayable(f"pace: {pace!r} is not recorded, instant or a number")
    if exhausted not in _EXHAUSTED:
        raise NotPlayable(f"exhausted: {exhausted!r} is not repeat or miss")


def _as_tuple(paths: str | Iterable[str]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
