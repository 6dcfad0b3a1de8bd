"""The configuration: a TOML file, the environment and the command line, read once into frozen values.

The tables of settings live beside their values: `bridge.settings.step` for one step, `bridge.settings.server` for the
process. Whatever is wrong is found in one pass and told with its key and line.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from bridge.config import checks
from bridge.config.gateway_toml import gateways_of
from bridge.config.gateways import ANY, Gateway, is_gateway_name
from bridge.config.problems import ConfigError, Location, Problem, Report, Takers
from bridge.config.reader import Reader
from bridge.config.secrets import Secrets
from bridge.config.token_toml import read_token
from bridge.config.toml_lines import key_lines
from bridge.providers import Provider
from bridge.providers import resolving as providers
from bridge.settings.kinds import Choice, Converter, Number, Text
from bridge.settings.redis_url import RedisUrl, RedisUrlConverter
from bridge.settings.server import ENVIRONMENT_PREFIX, SERVER, ServerSettings


def _as_it_is(value: object) -> object:
    return value


PROVIDER: Final[Mapping[str, Converter]] = {
    "base_url": Text("a URL"),
    "realtime_base_url": Text("a URL"),
    "ended_without_mark": Choice(("broken", "done")),
    "max_connections": Number(1),
}
"""Keys of a provider's table; `bridge.providers` says what they do."""

_ACCEPT_PROVIDER: Final = {name: kind.convert for name, kind in PROVIDER.items()}
_ACCEPT_SERVER: Final = {row.name: row.kind.convert for row in SERVER}
_PARSE_SERVER: Final = {row.name: row.kind.parse for row in SERVER}
_TABLES: Final = dict.fromkeys(("server", "gateways", "providers"), _as_it_is)
_NO_GATEWAY: Final = "the file defines no gateway: there is one for any name, and it is open"
_NOT_SHARED: Final = "each worker has limits, breakers and a memory of answers of its own: redis_url would share them"
_NO_PRICES: Final = (
    "no price list is installed: costs are known only by custom_cost or from providers that report them; "
    "pip install 'universal-bridge[cost]' brings one"
)
_UNPRICED_CALLS: Final = (
    '. spend_limits refuse calls without a known price (9027), unless spend_limits.unpriced is "allow"'
)
_SYNTAX_ERROR_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Configuration:
    """An immutable snapshot: sessions hold the one that they began with."""

    server: ServerSettings
    gateways: Mapping[str, Gateway]
    providers: Mapping[str, Provider]
    path: Path | None = None
    """The file it was read from."""
    notes: tuple[str, ...] = ()
    """What is no fault but may surprise."""
    files: tuple[Path, ...] = ()
    """All that were read: a change of one is a change of the configuration."""

    def gateway(self, name: str) -> Gateway | None:
        """The gateway of that name, else the one for any name, if there is one.

        Any name that a gateway could have: it goes into keys, rows and labels.
        """
        return self.gateways.get(name) or (self.gateways.get(ANY) if is_gateway_name(name) else None)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Configuration:
    """Read the configuration; without a file, the defaults and one open gateway for any name.

    `overrides` are the command line's, by the names of ServerSettings; None is not given. Command line comes before
    environment, environment before file, file before default. Relative paths in the file are relative to its folder.
    Raises ConfigError with every problem that was found.
    """
    text = _text_of(path) if path else ""
    document = _parsed(text)
    report = Report(key_lines(text))
    tables = {name: report.table(document.get(name, {}), report.place(name)) for name in _TABLES}
    report.take(document, _TABLES, report.place)
    folder = path.parent if path else Path()
    server, places = _server(report, tables["server"], folder, environ, overrides)
    known = _providers(report, tables["providers"])
    secrets = Secrets(folder, environ)
    server = _with_redis(report, server, places, secrets)
    server = _with_metrics_token(report, server, places, secrets)
    gateways = gateways_of(Reader(report, ("gateways",), secrets, known), tables["gateways"])
    checks.check_tls(report, server, places)
    checks.check_open(report, server, places, gateways)
    checks.check_liveness(report, server, places)
    files = tuple(file for file in (path, server.tls_cert, server.tls_key, *secrets.files) if file)
    if report.problems:
        raise ConfigError(report.problems, files)
    surprises = {
        _NO_GATEWAY: path is not None and not tables["gateways"],
        _NOT_SHARED: server.workers > 1 and server.redis_url is None,
        _NO_PRICES: not _has_prices() and not _has_budgets(gateways),
        _NO_PRICES + _UNPRICED_CALLS: not _has_prices() and _has_budgets(gateways),
    }
    notes = tuple(note for note, holds in surprises.items() if holds)
    return Configuration(server, MappingProxyType(gateways), known, path, notes, files)


def _has_prices() -> bool:
    """True if the package of the extra `cost` is installed."""
    return find_spec("genai_prices") is not None


def _has_budgets(gateways: Mapping[str, Gateway]) -> bool:
    limits = [gateway.limits for gateway in gateways.values()]
    limits += [token.limits for gateway in gateways.values() for token in gateway.tokens]
    return any(each.spend and not each.allow_unpriced for each in limits)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem("", None, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", error.object.count(b"\n", 0, error.start) + 1, "is not UTF-8 text")]) from None


def _parsed(text: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Only Python 3.14 tells the line apart from the message; "at end of document" is the other form.
        message = str(error)
        found = _SYNTAX_ERROR_LINE.search(message)
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(
            [Problem("", line, f"is not TOML: {message.removesuffix(found[0] if found else '')}")]
        ) from None


def _server(
    report: Report,
    table: Mapping[str, object],
    folder: Path,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
) -> tuple[ServerSettings, Mapping[str, Location]]:
    """The settings, and where each that is not a default was given."""
    variables = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and value
    }
    flags = {name: value for name, value in overrides.items() if value is not None}
    sources: tuple[tuple[Mapping[str, object], Takers, Callable[[str], Location], Path], ...] = (
        (table, _ACCEPT_SERVER, partial(report.place, "server"), folder),
        (variables, _PARSE_SERVER, _variable, Path()),
        (flags, _ACCEPT_SERVER, _flag, Path()),
    )
    values: dict[str, Any] = {}
    places: dict[str, Location] = {}
    for given, takers, place, base in sources:
        for name, value in report.take(given, takers, place).items():
            values[name] = base / value if isinstance(value, Path) else value
            places[name] = place(name)
    return ServerSettings(**values), places


def _with_redis(
    report: Report, server: ServerSettings, places: Mapping[str, Location], secrets: Secrets
) -> ServerSettings:
    """With the URL read from where it is, if it was not given itself."""
    named = server.redis_url
    if named is None or named.url:
        return server
    try:
        found = RedisUrlConverter().parse(secrets.read(named.given))
        if not found.url:
            raise ValueError(f"{named.given} holds a reference, not a URL")
    except ValueError as error:
        report.add(places["redis_url"], str(error))
        return server
    return replace(server, redis_url=RedisUrl(named.given, found.url))


def _with_metrics_token(
    report: Report, server: ServerSettings, places: Mapping[str, Location], secrets: Secrets
) -> ServerSettings:
    """With the digest of the token, wherever that is."""
    named = server.metrics_token
    if named is None:
        return server
    try:
        digest, _ = read_token(named.given, secrets)
    except ValueError as error:
        report.add(places["metrics_token"], str(error))
        return server
    return replace(server, metrics_token=replace(named, digest=digest))


def _variable(name: str) -> Location:
    return Location(ENVIRONMENT_PREFIX + name.upper())


def _flag(name: str) -> Location:
    return Location("--" + name.replace("_", "-"))


def _providers(report: Report, tables: Mapping[str, object]) -> Mapping[str, Provider]:
    changes = {slug: _changes(report, slug, given) for slug, given in tables.items()}
    return providers.with_overrides({slug: taken for slug, taken in changes.items() if taken is not None})


def _changes(report: Report, slug: str, given: object) -> dict[str, object] | None:
    """What one provider's table changes; None if it cannot stand, which is then reported."""
    place = partial(report.place, "providers", slug)
    table = report.table(given, place())
    taken = report.take(table, _ACCEPT_PROVIDER, place)
    if "base_url" in table and "base_url" not in taken:
        return None  # refused already; that it is missing now is no second problem
    try:
        providers.with_overrides({slug: taken})
    except ValueError as error:
        message = str(error)
        key = message.partition(" ")[0]
        report.add(place(key) if key in table else place(), message)
        return None
    return taken
