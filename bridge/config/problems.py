"""Problems of a configuration: each with its key and line, collected before one error is raised."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.config.toml_lines import Path as KeyPath
from bridge.nearest import nearest
from bridge.settings.kinds import shown

Converters = Mapping[str, Callable[[Any], object]]
"""Functions that convert a key's value or raise ValueError with the reason."""


@dataclass(frozen=True, slots=True)
class Location:
    """The position of a key."""

    key: str
    """As written: a dotted path in the file, an environment variable, or a `--flag`."""
    line: int | None = None
    """From 1, in the file; None for other sources."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, with its key and line."""

    key: str
    """Empty for the file as a whole."""
    line: int | None
    message: str

    def render(self, file: str | None) -> str:
        """Return `file:line: key: message`, without unknown parts."""
        where = f"{file}:{self.line}" if file and self.line else file if not self.key else None
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(Exception):
    """An invalid configuration. `problems` are ordered by line, those without a line last.

    `files` are those read until the error; the fault is in one of them.
    """

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = ()) -> None:
        self.files = tuple(files)
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line is None, problem.line)))
        super().__init__("\n".join(problem.render(None) for problem in self.problems))


class Report:
    """Collect problems while a configuration is read. `lines` are the lines of the file's keys."""

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self.problems: list[Problem] = []
        self._lines = lines

    def location(self, *path: str) -> Location:
        """Return the location of a key; for a key that is not in the file, the line of its nearest table."""
        known = (path[:length] for length in range(len(path), 0, -1) if path[:length] in self._lines)
        return Location(".".join(_quoted(part) for part in path), self._lines.get(next(known, ())))

    def add(self, location: Location, message: str) -> None:
        self.problems.append(Problem(location.key, location.line, message))

    def table(self, value: object, location: Location) -> Mapping[str, object]:
        if isinstance(value, Mapping):
            return value
        self.add(location, f"{shown(value)} is not a table")
        return {}

    def take(
        self, values: Mapping[str, object], converters: Converters, location: Callable[[str], Location]
    ) -> dict[str, Any]:
        """Convert the values of a table; each failure becomes a problem at `location(key)`."""
        converted = {}
        for key, value in values.items():
            if key not in converters:
                self.add(location(key), _unknown(key, converters))
                continue
            try:
                converted[key] = converters[key](value)
            except ValueError as error:
                self.add(location(key), str(error))
        return converted


def _unknown(key: str, known: Iterable[str]) -> str:
    near = nearest(key, known)
    return f"unknown key; did you mean {near}?" if near else f"unknown key; known keys: {', '.join(sorted(known))}"


def _quoted(part: str) -> str:
    bare = part.isascii() and part.replace("-", "").replace("_", "").isalnum()
    return part if bare else f'"{part}"'
