"""What is wrong with a configuration: every problem with its key and its line, collected before anything is raised."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.config.toml_lines import Path as KeyPath
from bridge.nearest import nearest
from bridge.settings.kinds import shown

Takers = Mapping[str, Callable[[Any], object]]
"""What turns each key's value into a setting's, or raises ValueError that says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Location:
    key: str
    """As written where it was given: a dotted path in the file, an environment variable, or a `--flag`."""
    line: int | None = None
    """From 1, in the file; None elsewhere."""


@dataclass(frozen=True, slots=True)
class Problem:
    key: str
    """Empty for the file as a whole."""
    line: int | None
    message: str

    def render(self, file: str | None) -> str:
        """`file:line: key: message`, without the parts that are not known."""
        where = f"{file}:{self.line}" if file and self.line else file if not self.key else None
        return ": ".join(part for part in (where, self.key, self.message) if part)


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` are in the order of their lines, those without a line last.

    `files` are those that were looked into, as far as it came: what is wrong is in one of them.
    """

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = ()) -> None:
        self.files = tuple(files)
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line is None, problem.line)))
        super().__init__("\n".join(problem.render(None) for problem in self.problems))


class Report:
    """Collects problems while a configuration is read; `lines` are the lines of the file's keys."""

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self.problems: list[Problem] = []
        self._lines = lines

    def place(self, *path: str) -> Location:
        """Where a key of the file stands; one that the file does not name stands at the nearest table around it."""
        known = (path[:length] for length in range(len(path), 0, -1) if path[:length] in self._lines)
        return Location(".".join(_quoted(part) for part in path), self._lines.get(next(known, ())))

    def add(self, place: Location, message: str) -> None:
        self.problems.append(Problem(place.key, place.line, message))

    def table(self, value: object, place: Location) -> Mapping[str, object]:
        if isinstance(value, Mapping):
            return value
        self.add(place, f"{shown(value)} is not a table")
        return {}

    def take(self, given: Mapping[str, object], takers: Takers, place: Callable[[str], Location]) -> dict[str, Any]:
        """The values that can be taken; each other one becomes a problem at `place(key)`."""
        taken = {}
        for key, value in given.items():
            if key not in takers:
                self.add(place(key), _unknown(key, takers))
                continue
            try:
                taken[key] = takers[key](value)
            except ValueError as error:
                self.add(place(key), str(error))
        return taken


def _unknown(key: str, known: Iterable[str]) -> str:
    near = nearest(key, known)
    return f"unknown key; did you mean {near}?" if near else f"unknown key; known are {', '.join(sorted(known))}"


def _quoted(part: str) -> str:
    bare = part.isascii() and part.replace("-", "").replace("_", "").isalnum()
    return part if bare else f'"{part}"'
