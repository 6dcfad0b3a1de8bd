"""Warnings about unknown setting names in a client's message."""

from collections.abc import Collection, Iterable
from typing import Final

from bridge.nearest import nearest

MAX_NAMED: Final = 8
"""Warnings of one message that name a setting; the others are summarized by number for each place."""
_MAX_CHARS: Final = 64


def warn_of_unknown(names: Iterable[str], known: Collection[str], where: str, warnings: list[str]) -> None:
    """Add a warning for each of `names` that is not in `known`; `where` is the place of the names."""
    unknown = [name for name in names if name not in known]
    named = unknown[: max(0, MAX_NAMED - len(warnings))]
    warnings += [f"{where}.{_shown(name)}: unknown, and ignored{_suggestion(name, known)}" for name in named]
    if more := len(unknown) - len(named):
        warnings.append(f"{where}: {more} more unknown names are ignored.")


def _suggestion(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else "."


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:_MAX_CHARS])
