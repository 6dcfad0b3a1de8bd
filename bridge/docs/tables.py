"""Render the tables of the manual that come from the code, and put them into Markdown text. Pure.

A page marks the place of a table by two comments; what stands between them is generated:

    <!-- table: settings -->
    <!-- /table -->
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from bridge.config.gateway_toml import CLOUDFLARE_NAMES, UNSUPPORTED
from bridge.docs import keys
from bridge.errors import all_errors
from bridge.providers import ALIASES, REGISTRY
from bridge.services.metrics import exposition
from bridge.settings.server import SERVER
from bridge.settings.step import SETTINGS

_REGION: Final = re.compile(r"^<!-- table: ([a-z-]+) -->\n(?:(?!<!--).*\n)*<!-- /table -->$", re.MULTILINE)

Cells = tuple[str, ...]


def fill(markdown: str) -> str:
    """Return `markdown` with the current content of each marked table. Raises KeyError for an unknown table name."""
    return _REGION.sub(lambda region: _region(region[1]), markdown)


def names_in(markdown: str) -> list[str]:
    """Return the names of the tables that `markdown` marks."""
    return _REGION.findall(markdown)


def _region(name: str) -> str:
    return f"<!-- table: {name} -->\n{render(name)}<!-- /table -->"


def render(name: str) -> str:
    """Return one table as Markdown lines."""
    header, rows = TABLES[name]
    return "".join(f"{line}\n" for line in _lines(header, rows()))


def _lines(header: Cells, rows: Iterable[Cells]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _code(value: object) -> str:
    return "" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _settings() -> Iterator[Cells]:
    for setting in SETTINGS:
        key = _code(setting.name) if setting.of_gateway else ""
        yield _code(setting.wire), key, _code(setting.header), _code(setting.default), setting.help


def _server() -> Iterator[Cells]:
    for row in SERVER:
        yield _code(row.name), _code(row.default), row.help


def _errors() -> Iterator[Cells]:
    for error in all_errors():
        retryable = "yes" if error.retryable else "no"
        yield str(error.code), str(error.status), error.source, retryable, " ".join((error.__doc__ or "").split())


def _metrics() -> Iterator[Cells]:
    for group in exposition.GROUPS.values():
        labels = ", ".join(map(_code, group.labels))
        for metric in group.metrics:
            yield _code(metric.name), metric.kind, labels, metric.help


def _providers() -> Iterator[Cells]:
    other_names = {slug: alias for alias, slug in ALIASES.items()}
    for provider in REGISTRY.values():
        credential = provider.credential
        key = f"{credential.header}: {credential.value('KEY')}"
        yield (
            _code(provider.slug),
            _code(other_names.get(provider.slug)),
            _code(provider.base_url),
            _code(key),
            _code(provider.compat_path),
        )


def _cloudflare_names() -> Iterator[Cells]:
    for theirs, ours in CLOUDFLARE_NAMES.items():
        yield _code(theirs), _code(ours)


def _unsupported() -> Iterator[Cells]:
    for name, reason in UNSUPPORTED.items():
        yield _code(name), reason


def _described(rows: Mapping[str, keys.DocumentedKey]) -> Callable[[], Iterator[Cells]]:
    return lambda: ((_code(name), key.default, key.help) for name, key in rows.items())


_KEY_COLUMNS: Final = ("key", "default", "meaning")

TABLES: Final[Mapping[str, tuple[Cells, Callable[[], Iterator[Cells]]]]] = {
    "settings": (("`config`", "configuration", "header", "default", "meaning"), _settings),
    "server-keys": (_KEY_COLUMNS, _server),
    "gateway-keys": (_KEY_COLUMNS, _described(keys.GATEWAY)),
    "limit-keys": (_KEY_COLUMNS, _described(keys.LIMITS)),
    "token-keys": (_KEY_COLUMNS, _described(keys.TOKEN)),
    "provider-keys": (_KEY_COLUMNS, _described(keys.PROVIDER)),
    "otel-keys": (_KEY_COLUMNS, _described(keys.OTEL)),
    "spend-rule-keys": (_KEY_COLUMNS, _described(keys.SPEND_RULE)),
    "error-codes": (("code", "HTTP", "source", "retryable", "meaning"), _errors),
    "metrics": (("metric", "type", "labels", "meaning"), _metrics),
    "cloudflare-names": (("Cloudflare's name", "name here"), _cloudflare_names),
    "cloudflare-unsupported": (("key", "why it has no meaning here"), _unsupported),
    "providers": (("slug", "other name", "base URL", "key of the provider", "endpoint for `compat`"), _providers),
}
"""Every generated table: its header, and the function that yields its rows."""
