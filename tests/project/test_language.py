"""The mechanical part of the project's rules for names and docstrings."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "bridge"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in MODULES}

MAX_LOOSE_MODULES = 6
MAX_README_LINES = 300
LEAST_WORDS = 3
CLAUSES = ("What", "Who", "Whoever", "Whose", "Whether", "How", "Of")

RETIRED = frozenset(
    [
        "anew",
        "asked",
        "carrier",
        "censor",
        "cue",
        "desk",
        "dialler",
        "dialling",
        "door",
        "entrance",
        "farewell",
        "flight",
        "foreign",
        "goodbye",
        "ground",
        "guest",
        "guests",
        "hear",
        "heard",
        "heading",
        "house",
        "inbox",
        "journal",
        "leg",
        "legs",
        "passage",
        "patience",
        "posting",
        "purse",
        "purses",
        "readings",
        "said",
        "say",
        "score",
        "sheet",
        "shelf",
        "strayed",
        "stray",
        "stranger",
        "told",
        "tally",
        "terms",
        "voice",
        "witness",
    ]
)
"""Words of an earlier, private vocabulary. Use the field's terms (bridge/docs/architecture.md)."""

ALLOWED = frozenset({"score"})
"""Words of the field: `score` is a member of Cloudflare's log API."""

Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def named_nodes(tree: ast.Module) -> Iterator[Named]:
    return (node for node in ast.walk(tree) if isinstance(node, Named))


def names_of(path: Path) -> Iterator[str]:
    """Yield every name that the module defines: its own, and those of classes, functions, parameters and variables."""
    yield path.stem
    for node in ast.walk(TREES[path]):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words_of(name: str) -> Iterator[str]:
    """Yield the words of a name in lower case; "in flight" is a term of the field."""
    return (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name.replace("in_flight", "")))


def docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    tree = TREES[path]
    for node in (tree, *named_nodes(tree)):
        if text := ast.get_docstring(node):
            yield getattr(node, "lineno", 1), text


def attribute_docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings that describe the constant or the attribute above them."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def is_clause(text: str) -> bool:
    return text.split()[0] in CLAUSES


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_class_names_are_unique_in_the_project() -> None:
    names = Counter(
        node.name for tree in TREES.values() for node in named_nodes(tree) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_gives_no_retired_names(path: Path) -> None:
    found = {name for name in names_of(path) if not (RETIRED - ALLOWED).isdisjoint(words_of(name))}
    assert found == set()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_docstrings_are_sentences_with_a_subject_and_a_verb(path: Path) -> None:
    clauses = [
        f"{relative(path)}:{line}: {text.splitlines()[0]}"
        for line, text in docstrings_of(path)
        if is_clause(text) or len(text.split()) < LEAST_WORDS
    ]
    assert clauses == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_descriptions_of_attributes_are_no_bare_clauses(path: Path) -> None:
    clauses = [f"{relative(path)}:{line}: {text}" for line, text in attribute_docstrings_of(path) if is_clause(text)]
    assert clauses == []


def test_few_modules_lie_directly_in_the_package() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_LOOSE_MODULES


def test_every_package_says_what_it_is_for() -> None:
    packages = [path for path in MODULES if path.name == "__init__.py"]
    assert [relative(path) for path in packages if not ast.get_docstring(TREES[path])] == []


def test_no_test_lies_flat_beside_the_packages() -> None:
    tests = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    loose = {f"test_{path.stem}.py" for path in PACKAGE.glob("*.py")}
    assert tests <= loose


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES
