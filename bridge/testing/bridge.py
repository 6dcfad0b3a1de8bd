"""A bridge that plays tapes, on a loop of its own in a background thread: any test may use it, with a loop or without.

What was played is remembered: tapes of one request play in the order of their paths. So each test has its own stage.
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
"""The account and the gateway of its URL; any other will do."""

CONFIG_HINT: Final = (
    "If the provider's base URL comes from your configuration, name that file in the marker: "
    'bridge_tapes(…, config="bridge.toml")'
)
"""Without it a provider of the user's own is unknown, and a built-in one is asked at its own host."""

_NAMED_PACES: Final = ("recorded", "instant")
_EXHAUSTED: Final = ("repeat", "miss")
_AT_ONCE: Final[Mapping[str, object]] = {"host": "127.0.0.1", "port": 0, "drain_timeout": 0}
"""A test that is over waits for no event that it left behind."""


class NotPlayable(ValueError):
    """What a stage was asked for is wrong; the message says what."""


class TestBridge:
    """The tapes and the terms on which they play. `running` once."""

    def __init__(self, config: Configuration, transport: TapeTransport) -> None:
        self._config = config
        self.hint = transport.library.hint
        """What may be done about a miss."""
        self._transport = transport
        self.on_mismatch: list[str] = []
        """What differed whenever a client said on a socket what its tape has not."""
        self.missed: list[str] = []
        """The messages of requests that no tape answered."""
        transport.library.on_miss = self.missed.append

    @contextmanager
    def running(self) -> Iterator[str]:
        """The URL of the bridge, which listens on a free port of loopback. On leaving, nothing of it remains."""
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
    """All but `folders` as the options of `bridge serve --replay` have it. Of `config` only the providers count.

    Raises NotPlayable, and TypeError for what is not of these types.
    """
    _check(pace, exhausted)
    try:
        matching = Matching(_several(ignore_query), _several(ignore_json), _several(match_header))
        faults = [parse_fault(each) for each in _several(fault)]
        transport = TapeTransport(folders, pace=pace, matching=matching, exhausted=exhausted, faults=faults)
        transport.library.hint = "" if config else CONFIG_HINT
        return TestBridge(_config(config), transport)
    except (TapeError, ConfigError, ValueError) as error:
        raise NotPlayable(str(error)) from None


def _config(path: Path | None) -> Configuration:
    """One open gateway under any name, whatever there is in the environment."""
    config = load(None, {}, _AT_ONCE)
    return replace(config, providers=load(path, {}, {}).providers) if path else config


def _check(pace: Pace, exhausted: Exhausted) -> None:
    if pace not in _NAMED_PACES and not (isinstance(pace, int | float) and 0 <= pace < math.inf):
        raise NotPlayable(f"pace: {pace!r} is not recorded, instant or a number")
    if exhausted not in _EXHAUSTED:
        raise NotPlayable(f"exhausted: {exhausted!r} is not repeat or miss")


def _several(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
