"""Parses paths into a JSON value, such as `$.metadata.user_id`, `$.messages[*].id` or `$.tools[0]`. Pure.

A subset of RFC 9535: `$`, then any number of `.name`, `[index]` (from 0) and `[*]` (every element of a list). `$` alone
is the entire value.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Final, Literal


class Every(Enum):
    """Marker for `[*]`, every element of a list."""

    ELEMENT = "*"


Part = str | int | Literal[Every.ELEMENT]
Path = tuple[Part, ...]

_PART: Final = re.compile(r"\.(?P<name>[^.\[\]\s*'\"]+)|\[(?:(?P<index>\d+)|\*)\]", re.ASCII)


class InvalidPath(ValueError):
    """The text is not a valid path; the message gives the position."""


@lru_cache(maxsize=256)
def parse_path(text: str) -> Path:
    """Parse a path. Raises InvalidPath."""
    if not text.startswith("$"):
        raise InvalidPath(f"invalid JSON path {text!r}: it must begin with $, as in $.metadata.user_id")
    at, path = 1, list[Part]()
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise InvalidPath(f"invalid JSON path {text!r}: expected .name, [index] or [*] after {text[:at]!r}")
        path.append(_part(found))
        at = found.end()
    return tuple(path)


def _part(found: re.Match[str]) -> Part:
    if found["name"] is not None:
        return found["name"]
    return Every.ELEMENT if found["index"] is None else int(found["index"])


def without(value: object, path: Path) -> object:
    """Return `value` without the parts that `path` selects. The value may be changed in place.

    A member is removed from its object. An element of a list becomes null, so that the others keep their indices.
    """
    if not path:
        return None
    part, *rest = path
    if isinstance(value, dict) and isinstance(part, str) and part in value:
        if rest:
            value[part] = without(value[part], tuple(rest))
        else:
            del value[part]
    elif isinstance(value, list) and not isinstance(part, str):
        for index in _indices(part, len(value)):
            value[index] = without(value[index], tuple(rest))
    return value


def _indices(part: int | Literal[Every.ELEMENT], length: int) -> range:
    if part is Every.ELEMENT:
        return range(length)
    return range(part, min(part + 1, length))
