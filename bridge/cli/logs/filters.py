"""Parses the options of `bridge logs`: the path of the log and the filters. Raises typer.BadParameter."""

import os
import re
import time
import tomllib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import typer

from bridge.services.request_log.reader import LogFilter
from bridge.settings.server import ENVIRONMENT_PREFIX

_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}LOG_PATH"
_AGO: Final = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_STATUS: Final = re.compile(r"([1-5])(?:xx|(\d\d))")


def log_of(config: Path | None, path: Path | None) -> Path:
    """Return the path of the log: `path`, or the one in the configuration.

    It reads nothing else of the configuration, so reading a log does not require the secrets that it refers to.
    """
    if path is not None:
        return path
    if os.environ.get(_VARIABLE):
        return Path(os.environ[_VARIABLE])
    if config is None:
        raise typer.BadParameter(f"no log is named: use --path FILE or --config FILE, or set {_VARIABLE}")
    found = _server(config).get("log_path")
    if not isinstance(found, str):
        raise typer.BadParameter(f"{config} names no log: set log_path under [server]", param_hint="--config")
    return config.parent / Path(found).expanduser()


def filter_of(
    gateway: str | None,
    provider: str | None,
    model: str | None,
    status: str | None,
    success: bool | None,
    since: str | None,
    metadata: Sequence[str],
) -> LogFilter:
    return LogFilter(
        gateway=gateway,
        provider=provider,
        model=model,
        status=None if status is None else _statuses(status),
        success=success,
        since_ms=None if since is None else _since_ms(since),
        metadata=metadata_of(metadata),
    )


def metadata_of(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        if not is_pair or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--metadata")
        found[key] = value
    return found


def _server(config: Path) -> dict[str, object]:
    try:
        found = tomllib.loads(config.read_text("utf-8-sig")).get("server", {})
    except OSError as error:
        raise typer.BadParameter(f"{config} cannot be read: {error.strerror}", param_hint="--config") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise typer.BadParameter(f"{config} is not TOML: {error}", param_hint="--config") from None
    return found if isinstance(found, dict) else {}


def _statuses(text: str) -> range:
    found = _STATUS.fullmatch(text.lower())
    if found is None:
        raise typer.BadParameter(f"invalid status {text!r}: expected a form like 429 or 4xx", param_hint="--status")
    first = int(found[1]) * 100
    return range(first, first + 100) if found[2] is None else range(first + int(found[2]), first + int(found[2]) + 1)


def _since_ms(text: str) -> int:
    """Return milliseconds since 1970. A time without a zone is local time."""
    if ago := _AGO.fullmatch(text):
        return max(time.time_ns() // 1_000_000 - int(ago[1]) * _UNIT_MS[ago[2]], 0)
    try:
        return max(int(datetime.fromisoformat(text).timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is neither 30m, 2h, 7d nor ISO 8601", param_hint="--since") from None
