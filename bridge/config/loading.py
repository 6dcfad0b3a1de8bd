"""Load the configuration from a TOML file, the environment and the command line into frozen values.

The tables of settings are in `bridge.settings.step` and `bridge.settings.server`. One pass finds every problem and
reports it with key and line.
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
from bridge.config.problems import ConfigError, Converters, Location, Problem, Report
from bridge.config.reader import Reader
from bridge.config.secrets import Secrets
from bridge.config.token_toml import read_token
from bridge.config.toml_lines import key_lines
from bridge.providers import Provider
from bridge.providers import resolving as providers
from bridge.settings.kinds import Choice, Converter, Number, Text
from bridge.settings.redis_url import RedisUrl, RedisUrlConverter
from bridge.settings.server import ENVIRONMENT_PREFIX, SERVER, ServerSettings


def _unchanged(value: object) -> object:
    return value


PROVIDER: Final[Mapping[str, Converter]] = {
    "base_url": Text("a URL"),
    "realtime_base_url": Text("a URL"),
    "ended_without_mark": Choice(("broken", "done")),
    "max_connections": Number(1),
}
"""Keys of a provider's table; described in `bridge.providers`."""

_CONVERT_PROVIDER: Final = {name: kind.convert for name, kind in PROVIDER.items()}
_CONVERT_SERVER: Final = {row.name: row.kind.convert for row in SERVER}
_PARSE_SERVER: Final = {row.name: row.kind.parse for row in SERVER}
_TABLES: Final = dict.fromkeys(("server", "gateways", "providers"), _unchanged)
_NO_GATEWAY: Final = "the file defines no gateway: an open gateway serves any name"
_NOT_SHARED: Final = "limits, breakers and cache are per worker; set redis_url to share them"
_NO_PRICES: Final = (
    "no price list is installed: costs are known only from custom_cost or from providers that report them; "
    "install one with: pip install 'universal-bridge[cost]'"
)
_UNPRICED_CALLS: Final = (
    '. spend_limits refuse calls without a known price (9027) unless spend_limits.unpriced = "allow"'
)
_SYNTAX_ERROR_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Configuration:
    """An immutable snapshot. Sessions keep the snapshot with which they started."""

    server: ServerSettings
    gateways: Mapping[str, Gateway]
    providers: Mapping[str, Provider]
    path: Path | None = None
    """The file that was read."""
    notes: tuple[str, ...] = ()
    """Hints about valid but surprising settings."""
    files: tuple[Path, ...] = ()
    """All files that were read; a change of one changes the configuration."""

    def gateway(self, name: str) -> Gateway | None:
        """Return the gateway of that name, else the gateway for any name, if there is one.

        Names that no gateway could have return None, because names become part of keys, rows and labels.
        """
        return self.gateways.get(name) or (self.gateways.get(ANY) if is_gateway_name(name) else None)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Configuration:
    """Read the configuration; without a file, use the defaults and one open gateway for any name.

    `overrides` are the command-line options by the names of ServerSettings; None means not set. Precedence: command
    line, environment, file, default. Relative paths in the file are relative to its folder. Raises ConfigError with all
    problems.
    """
    text = _text_of(path) if path else ""
    document = _parsed(text)
    report = Report(key_lines(text))
    tables = {name: report.table(document.get(name, {}), report.location(name)) for name in _TABLES}
    report.take(document, _TABLES, report.location)
    folder = path.parent if path else Path()
    server, locations = _server(report, tables["server"], folder, environ, overrides)
    known = _providers(report, tables["providers"])
    secrets = Secrets(folder, environ)
    server = _with_redis(report, server, locations, secrets)
    server = _with_metrics_token(report, server, locations, secrets)
    gateways = gateways_of(Reader(report, ("gateways",), secrets, known), tables["gateways"])
    checks.check_tls(report, server, locations)
    checks.check_open(report, server, locations, gateways)
    checks.check_liveness(report, server, locations)
    files = tuple(file for file in (path, server.tls_cert, server.tls_key, *secrets.files) if file)
    if report.problems:
        raise ConfigError(report.problems, files)
    conditions = {
        _NO_GATEWAY: path is not None and not tables["gateways"],
        _NOT_SHARED: server.workers > 1 and server.redis_url is None,
        _NO_PRICES: not _has_prices() and not _has_budgets(gateways),
        _NO_PRICES + _UNPRICED_CALLS: not _has_prices() and _has_budgets(gateways),
    }
    notes = tuple(note for note, holds in conditions.items() if holds)
    return Configuration(server, MappingProxyType(gateways), known, path, notes, files)


def _has_prices() -> bool:
    """Return True if the package of the extra `cost` is installed."""
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
        # Before Python 3.14 the line is only part of the message; "at end of document" is the other form.
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
    """Return the settings, and the location of each value that is not a default."""
    variables = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX) and value
    }
    flags = {name: value for name, value in overrides.items() if value is not None}
    sources: tuple[tuple[Mapping[str, object], Converters, Callable[[str], Location], Path], ...] = (
        (table, _CONVERT_SERVER, partial(report.location, "server"), folder),
        (variables, _PARSE_SERVER, _variable, Path()),
        (flags, _CONVERT_SERVER, _flag, Path()),
    )
    values: dict[str, Any] = {}
    locations: dict[str, Location] = {}
    for fields, converters, location, base in sources:
        for name, value in report.take(fields, converters, location).items():
            values[name] = base / value if isinstance(value, Path) else value
            locations[name] = location(name)
    return ServerSettings(**values), locations


def _with_redis(
    report: Report, server: ServerSettings, locations: Mapping[str, Location], secrets: Secrets
) -> ServerSettings:
    """Replace a reference by the Redis URL that it names."""
    named = server.redis_url
    if named is None or named.url:
        return server
    try:
        found = RedisUrlConverter().parse(secrets.read(named.shown))
        if not found.url:
            raise ValueError(f"{named.shown} contains a reference, not a URL")
    except ValueError as error:
        report.add(locations["redis_url"], str(error))
        return server
    return replace(server, redis_url=RedisUrl(named.shown, found.url))


def _with_metrics_token(
    report: Report, server: ServerSettings, locations: Mapping[str, Location], secrets: Secrets
) -> ServerSettings:
    """Add the digest of the metrics token."""
    named = server.metrics_token
    if named is None:
        return server
    try:
        digest, _ = read_token(named.reference, secrets)
    except ValueError as error:
        report.add(locations["metrics_token"], str(error))
        return server
    return replace(server, metrics_token=replace(named, digest=digest))


def _variable(name: str) -> Location:
    return Location(ENVIRONMENT_PREFIX + name.upper())


def _flag(name: str) -> Location:
    return Location("--" + name.replace("_", "-"))


def _providers(report: Report, tables: Mapping[str, object]) -> Mapping[str, Provider]:
    changes = {slug: _changes(report, slug, table) for slug, table in tables.items()}
    return providers.with_overrides({slug: values for slug, values in changes.items() if values is not None})


def _changes(report: Report, slug: str, value: object) -> dict[str, object] | None:
    """Return the changes of one provider's table; None if it is invalid, which is reported."""
    location = partial(report.location, "providers", slug)
    table = report.table(value, location())
    values = report.take(table, _CONVERT_PROVIDER, location)
    if "base_url" in table and "base_url" not in values:
        return None  # already reported
    try:
        providers.with_overrides({slug: values})
    except ValueError as error:
        message = str(error)
        key = message.partition(" ")[0]
        report.add(location(key) if key in table else location(), message)
        return None
    return values
