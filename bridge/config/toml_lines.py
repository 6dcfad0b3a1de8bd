"""Find the line of each key of a TOML file; the standard library's parser does not report it.

Grammar: toml.io/en/v1.0.0. `tomllib` has accepted the text before, so it is not validated here.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Final, NamedTuple

Path = tuple[str, ...]

_TOKEN: Final = re.compile(
    r'''
      (?P<gap>    [ \t\r]+ | \#[^\n]* )
    | (?P<string> """ (?:\\[\s\S]|[^\\])*? """(?!")
                | \'\'\' [\s\S]*? \'\'\'(?!\')
                | " (?:\\.|[^"\\\n])* "
                | ' [^'\n]* ' )
    | (?P<mark>   [\[\]{}=,.\n] )
    | (?P<bare>   [^\s\[\]{}=,.\#"']+ )
    ''',
    re.VERBOSE,
)


class _Token(NamedTuple):
    """A token. The text of a mark is unique: a string keeps its quotes."""

    kind: str
    text: str
    line: int


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of the first occurrence of each key and table, by its full path.

    A dotted name is an occurrence of each table on its path. Keys of inline tables inside arrays are omitted; keys of
    `[[array]]` tables have the array's path.
    """
    lines: dict[Path, int] = {}
    tokens = _tokens(text)
    table: Path = ()
    for token in tokens:
        if token.text == "[":
            table = _read_name((), tokens, lines, "]")
        elif token.kind != "mark":
            _skip_value(_read_name(table, tokens, lines, "=", token), tokens, lines)
    return lines


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        assert kind is not None
        if kind != "gap":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")


def _read_name(
    prefix: Path, tokens: Iterator[_Token], lines: dict[Path, int], end: str, first: _Token | None = None
) -> Path:
    """Read a dotted name up to the mark `end`, and record the line of each part. Return its full path."""
    token = first or next(tokens)
    path = prefix
    while token.text != end:
        if token.kind != "mark":
            path = (*path, _key_text(token))
            lines.setdefault(path, token.line)
        token = next(tokens)
    return path


def _key_text(token: _Token) -> str:
    name = tomllib.loads(f"name = {token.text}")["name"] if token.kind == "string" else token.text
    assert isinstance(name, str)
    return name


def _skip_value(path: Path, tokens: Iterator[_Token], lines: dict[Path, int]) -> str:
    """Skip a value and return the mark that ends it: a line end, or in an inline table a comma or brace."""
    depth = 0
    for token in tokens:
        mark = token.text
        if mark == "{" and depth == 0:
            _inline_table(path, tokens, lines)
        elif mark in ("[", "{"):
            depth += 1
        elif mark in ("]", "}") and depth:
            depth -= 1
        elif mark in ("\n", ",", "}") and depth == 0:
            return mark
    return ""


def _inline_table(path: Path, tokens: Iterator[_Token], lines: dict[Path, int]) -> None:
    """Record the keys of an inline table, whose opening brace was read."""
    for token in tokens:
        if token.text == "}":
            return
        if token.kind != "mark" and _skip_value(_read_name(path, tokens, lines, "=", token), tokens, lines) == "}":
            return
