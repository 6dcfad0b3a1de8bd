"""Prints the demo: styled lines clipped to the width of a terminal, or plain complete lines elsewhere."""

import json
import textwrap
from typing import Final, Protocol, TextIO

from bridge.client import Frame
from bridge.formats.text import text_of

Part = str | tuple[str, str]
"""A text, or a text with a style of rich."""

_COLUMNS: Final = 100
_GIST_CHARS: Final = 18
_STYLES: Final = {"created": "cyan", "stream": "blue", "done": "green", "error": "yellow"}


class Screen(Protocol):
    @property
    def columns(self) -> int: ...

    def show(self, *parts: Part) -> None:
        """Print one line."""

    def write(self, text: str) -> None:
        """Print a text unchanged, so that it can be copied."""


class PlainScreen:
    """Prints to any stream, without clipping and colours."""

    columns = _COLUMNS

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, *parts: Part) -> None:
        self.write("".join(part if isinstance(part, str) else part[0] for part in parts).rstrip())

    def write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class TerminalScreen:
    def __init__(self, out: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=out, highlight=False)

    @property
    def columns(self) -> int:
        return min(self._console.width, _COLUMNS)

    def show(self, *parts: Part) -> None:
        from rich.text import Text

        self._console.print(Text.assemble(*parts), no_wrap=True, overflow="ellipsis", crop=True)

    def write(self, text: str) -> None:
        self._console.out(text, highlight=False)


def screen_on(out: TextIO) -> Screen:
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="replace")
    return TerminalScreen(out) if out.isatty() else PlainScreen(out)


def show_paragraph(screen: Screen, text: str, style: str = "") -> None:
    """Print a paragraph, indented and wrapped."""
    for line in textwrap.wrap(text, screen.columns - 4):
        screen.show("   ", (line, style))


def show_sent(screen: Screen, kind: str, message: str) -> None:
    screen.show("   ", ("→ ", "bold"), (f"{kind:<9}", "bold"), (message, "dim"))


def show_received(screen: Screen, frame: Frame) -> None:
    """Print one frame: its type, a summary and its JSON."""
    kind = (f"{frame.type:<9}", _STYLES.get(frame.type, ""))
    screen.show("   ", ("← ", "bold"), kind, f"{_gist(frame):<{_GIST_CHARS}} ", (frame.raw.decode(), "dim"))


def _gist(frame: Frame) -> str:
    if frame.error is not None:
        return str(frame.error.code)
    if frame.has_response:
        text = text_of(frame.response)
        return json.dumps(text, ensure_ascii=False) if text else ""
    return f"step {frame.metadata.step}, {frame.metadata.provider}"
