"""Warnings for names that a client wrote and that no setting has."""

from collections.abc import Collection, Iterable
from typing import Final

from bridge.nearest import nearest

MAX_NAMED: Final = 8
"""How many warnings of one message name what they are about; of the rest, each place tells the number."""
_MAX_CHARS: Final = 64


def warn_of_unknown(given: Iterable[str], known: Collection[str], where: str, warnings: list[str]) -> None:
    """Add a warning for each name of `given` that is not in `known`; `where` is the place that they stand in."""
    unknown = [name for name in given if name not in known]
    named = unknown[: max(0, MAX_NAMED - len(warnings))]
    warnings += [f"{where}.{_shown(name)}: unknown, and ignored{_suggestion(name, known)}" for name in named]
    if more := len(unknown) - len(named):
        warnings.append(f"{where}: {more} more unknown names are ignored.")


def _suggestion(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else "."


def _shown(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name[:_MAX_CHARS])
