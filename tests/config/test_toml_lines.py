"""Each key of a TOML file is found on the line where it stands."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config.toml_lines import key_lines

CASES = {
    "a key": ("a = 1\nb = 2", {("a",): 1, ("b",): 2}),
    "a table": ("\n[t]\na = 1", {("t",): 2, ("t", "a"): 3}),
    "a table of tables": ("[a.b.c]\nd = 1", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "b", "c", "d"): 2}),
    "blanks in a header": ("[ a . b ] # c\nd = 1", {("a",): 1, ("a", "b"): 1, ("a", "b", "d"): 2}),
    "a quoted part": ('[a."b.c"]\nd = 1', {("a",): 1, ("a", "b.c"): 1, ("a", "b.c", "d"): 2}),
    "an escape in a key": ('"a\\u00e9\\"" = 1', {('aé"',): 1}),
    "a literal key": ("'a\"b' = 1", {('a"b',): 1}),
    "a dotted key": ("a.b = 1\na.c = 2", {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
    "a key of digits": ("1.2 = 3.4", {("1",): 1, ("1", "2"): 1}),
    "an inline table": (
        "a = { b = 1, c.d = 2 }\ne = 1",
        {("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "c", "d"): 1, ("e",): 2},
    ),
    "an empty inline table": ("a = {}\nb = 1", {("a",): 1, ("b",): 2}),
    "inline tables within": (
        "a = {b = {c = 1}, d = 2}\ne = 1",
        {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "d"): 1, ("e",): 2},
    ),
    "an array over lines": ("a = [\n  1, # b = 2\n  [2],\n]\nc = 1", {("a",): 1, ("c",): 5}),
    "tables in an array": ("a = [{b = 1}, {c = [2]}]\nd = 1", {("a",): 1, ("d",): 2}),
    "an array in an inline table": ("a = {b = [1,\n2], c = 3}", {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
    "an array of tables": ("[[a]]\nb = 1\n[[a]]\nc = 1", {("a",): 1, ("a", "b"): 2, ("a", "c"): 4}),
    "keys inside a string": ('a = "b = 1 [c] # \\" d"\ne = 1', {("a",): 1, ("e",): 2}),
    "keys inside a literal string": ("a = 'b = \"'\nc = 1", {("a",): 1, ("c",): 2}),
    "keys inside a long string": ('a = """\nb = 1\n[c]\n\\"""\n"" """\nd = 1', {("a",): 1, ("d",): 6}),
    "quotes before a long string's end": ('a = """b"""""\nc = 1', {("a",): 1, ("c",): 2}),
    "an empty long string": ('a = """"""\nb = 1', {("a",): 1, ("b",): 2}),
    "keys inside a long literal": ("a = '''\nb = 1\n\\'''\nc = 1", {("a",): 1, ("c",): 4}),
    "a comment with marks": ("# [a] b = {\nc = 1 # d = 1", {("c",): 2}),
    "carriage returns": ("a = 1\r\n[t]\r\nb = 1\r\n", {("a",): 1, ("t",): 2, ("t", "b"): 3}),
    "dates and odd numbers": ("a = 1979-05-27 07:32:00.5Z\nb = +inf\nc = 1e-5", {("a",): 1, ("b",): 2, ("c",): 3}),
    "nothing": ("", {}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), CASES.values(), ids=CASES)
def test_every_key_is_found_on_its_line(text: str, lines: dict[tuple[str, ...], int]) -> None:
    tomllib.loads(text)
    assert key_lines(text) == lines


KEYS = st.text(st.characters(codec="utf-8"), max_size=4)


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.text(max_size=5), max_size=3), max_size=3))
def test_any_names_in_quotes_are_read_as_the_parser_reads_them(tables: dict[str, dict[str, str]]) -> None:
    text = ""
    expected: dict[tuple[str, ...], int] = {}
    for table, keys in tables.items():
        text += f"[{_quoted(table)}]\n"
        expected[(table,)] = text.count("\n")
        for key, value in keys.items():
            text += f'{_quoted(key)} = """{_quoted(value)[1:-1]}\n"""\n'
            expected[(table, key)] = text.count("\n") - 1
    assert {table: set(keys) for table, keys in tomllib.loads(text).items()} == {t: set(k) for t, k in tables.items()}
    assert key_lines(text) == expected


def _quoted(name: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in name) + '"'
