"""Apply the settings in a message's `config` and in `cf-aig-*` headers to the settings of a step."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from bridge.errors import BadField
from bridge.settings.kinds import OutOfRangeError
from bridge.settings.step import SETTINGS, StepSettings
from bridge.settings.unknown import warn_of_unknown

T = TypeVar("T")

_BY_WIRE: Final = {setting.wire: setting for setting in SETTINGS}
_BY_OLD_HEADER: Final = {setting.old_header: setting for setting in SETTINGS if setting.old_header}
_BY_HEADER: Final = {setting.header: setting for setting in SETTINGS if setting.header}

SETTING_PREFIX: Final = "cf-aig-"
_NO_SETTINGS: Final = {
    "cf-aig-authorization",
    "cf-aig-dlp",
    "cf-aig-event-id",
    "cf-aig-gateway-id",
    "cf-aig-no-wholesale",
    "cf-aig-run-id",
    "cf-aig-zdr",
}
"""Known headers that set nothing. Most of them have a meaning at Cloudflare only."""
_KNOWN_HEADERS: Final = _BY_HEADER.keys() | _NO_SETTINGS


def from_config_object(
    base: StepSettings, fields: Mapping[str, object], where: str, warnings: list[str]
) -> StepSettings:
    """Apply a message's `config` to `base`; return `base` itself if nothing changes. Unknown fields are ignored.

    A number out of range is clamped, with a message in `warnings`. Raises BadField, which names the field as
    `where.field`, for other invalid values and for a negative duration.
    """
    changed: dict[str, Any] = {}
    for wire, value in fields.items():
        if setting := _BY_WIRE.get(wire):
            changed[setting.name] = _converted(setting.kind.convert, value, f"{where}.{wire}", warnings)
    return msgspec.structs.replace(base, **changed) if changed else base


def from_headers(base: StepSettings, headers: Mapping[str, str], where: str, warnings: list[str]) -> StepSettings:
    """Apply `cf-aig-*` headers with lower-case names to `base`, otherwise like `from_config_object`.

    An unknown header is ignored, with a message in `warnings`.
    """
    changed: dict[str, Any] = {}
    ours = (name for name in headers if name.startswith(SETTING_PREFIX))
    warn_of_unknown(ours, _KNOWN_HEADERS, where, warnings)
    for table in (_BY_OLD_HEADER, _BY_HEADER):
        for header in headers.keys() & table.keys():
            setting = table[header]
            changed[setting.name] = _converted(setting.kind.parse, headers[header], f"{where}.{header}", warnings)
    return msgspec.structs.replace(base, **changed) if changed else base


def _converted(convert: Callable[[T], object], value: T, field: str, warnings: list[str]) -> object:
    try:
        return convert(value)
    except OutOfRangeError as error:
        warnings.append(f"{field}: {error}; {error.nearest} is used instead.")
        return error.nearest
    except ValueError as error:
        raise BadField(f"{field}: {error}") from None
