"""Find and read the pages of the manual. Only this package's own files are read."""

from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_SUFFIX: Final = ".md"
_MARKER: Final = "<!-- "
"""Begins a line that delimits a generated table, see `tables`."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the manual: its topic, its title, the sentence below the title, and its Markdown text."""

    topic: str
    title: str
    summary: str
    markdown: str

    @property
    def text(self) -> str:
        """The page without the markers of generated tables."""
        lines = self.markdown.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(_MARKER))


def topics() -> list[str]:
    """Return the names of all pages, sorted."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in _folder().iterdir() if file.name.endswith(_SUFFIX))


def read(topic: str) -> Page:
    """Return the page of a topic. Raises KeyError for a topic that `topics` does not name."""
    if topic not in topics():
        raise KeyError(topic)
    markdown = _folder().joinpath(topic + _SUFFIX).read_text(encoding="utf-8")
    title, _, rest = markdown.partition("\n")
    summary, _, _ = rest.strip("\n").partition("\n")
    return Page(topic, title.removeprefix("# "), summary, markdown)


def _folder() -> Traversable:
    return resources.files("bridge.docs")
