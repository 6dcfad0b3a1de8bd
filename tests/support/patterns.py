"""List every regular expression of the package with its uses, and generate texts on which a bad pattern is slow."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from re import _constants as sre  # type: ignore[attr-defined]  # the parser's names are not public
from re import _parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any, NamedTuple

import bridge

METHODS = ("match", "fullmatch", "search", "finditer", "findall", "split", "sub")
METHODS_OF = {
    "bridge.providers.endpoints._BASE_FAULTS[][]": ("match",),
    "bridge.client.frames._NAME": ("match",),
    "bridge.server.access._ORIGIN": ("match",),  # it matches at once, for a single substitution
    "bridge.server.auth._HOST": ("fullmatch",),
    "bridge.server.auth._ORIGIN": ("fullmatch",),
}
"""Methods of the patterns that are not called by name."""
MAX_TEXTS = 120
_MAX_DEPTH = 5


class Use(NamedTuple):
    """A pattern and one method that the package calls on it."""

    name: str
    pattern: re.Pattern[Any]
    method: str

    def run(self, text: str) -> None:
        subject: Any = text.encode("latin-1", "replace") if isinstance(self.pattern.pattern, bytes) else text
        if self.method in ("search", "finditer", "findall"):
            for _ in self.pattern.finditer(subject):
                pass
        elif self.method == "sub":
            self.pattern.sub(subject[:0], subject)
        else:
            getattr(self.pattern, self.method)(subject)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def uses() -> list[Use]:
    found: dict[tuple[Any, int, str], Use] = {}
    all_modules = list(modules())
    called: dict[str, set[str]] = {}
    for module in all_modules:
        for name, methods in _called_methods(module):
            called.setdefault(name, set()).update(methods)
    for module in all_modules:
        for name, pattern in (*_patterns_in(module), *_literal_patterns(module)):
            if name.endswith(".pattern"):  # a setting's, see bridge/settings/kinds.py
                found.setdefault((pattern.pattern, pattern.flags, "fullmatch"), Use(name, pattern, "fullmatch"))
                continue
            for method in METHODS_OF.get(name) or sorted(called.get(name, ())) or ("match", "search"):
                found.setdefault((pattern.pattern, pattern.flags, method), Use(name, pattern, method))
    return list(found.values())


def _called_methods(module: ModuleType) -> Iterator[tuple[str, set[str]]]:
    """Yield the full name of each pattern and the methods called on it. A pattern passed to a function counts as a
    search.
    """
    for node in ast.walk(_source(module)):
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield _full_name(module, node.value), {node.attr}
        elif isinstance(node, ast.Call):
            for argument in node.args:
                yield _full_name(module, argument), {"search"}


def _full_name(module: ModuleType, node: ast.AST) -> str:
    """Return the full name of a constant of the module, or of another module that it imports."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = vars(module).get(node.value.id)
        return f"{owner.__name__}.{node.attr}" if isinstance(owner, ModuleType) else ""
    return f"{module.__name__}.{node.id}" if isinstance(node, ast.Name) else ""


def _source(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        return ast.parse(file.read())


def _literal_patterns(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the patterns of `re.split("…", …)` and similar calls inside functions."""
    for node in ast.walk(_source(module)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[ast.Constant(value), *_]) if (
                method in METHODS
            ):
                yield f"{module.__name__}:{node.lineno}", re.compile(value)


def _patterns_in(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:
    seen: set[int] = set()
    for name, value in list(vars(module).items()):
        yield from _within(f"{module.__name__}.{name}", value, seen, 0)


def _within(name: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the patterns in a value, in its elements, and in the attributes of the package's own classes and
    objects.
    """
    if isinstance(value, re.Pattern):
        yield name, value
    if depth > _MAX_DEPTH or id(value) in seen or isinstance(value, str | bytes | int | float | ModuleType):
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for key, one in list(value.items()):
            yield from _within(f"{name}[{key!r:.40}]", key, seen, depth + 1)
            yield from _within(f"{name}[{key!r:.40}]", one, seen, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from _within(f"{name}[]", one, seen, depth + 1)
    if _is_ours(value):
        for attribute, one in _attributes(value):
            if attribute == "pattern" and isinstance(one, str):
                yield f"{name}.{attribute}", re.compile(one)
            yield from _within(f"{name}.{attribute}", one, seen, depth + 1)


def _is_ours(value: Any) -> bool:
    return getattr(value if isinstance(value, type) else type(value), "__module__", "").startswith("bridge")


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(value, "__dict__", {}).items())
    slots = getattr(type(value), "__slots__", ())
    for slot in (slots,) if isinstance(slots, str) else slots:
        if hasattr(value, slot):
            yield slot, getattr(value, slot)


# Texts on which a backtracking pattern is slow.


def hostile_texts(pattern: re.Pattern[Any]) -> list[Callable[[int], str]]:
    """Return functions that generate a text of the requested length: repeated parts of a match, and a bad end."""
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    tree = _parser.parse(source, flags & (re.VERBOSE | re.IGNORECASE | re.DOTALL | re.MULTILINE))
    units = dict.fromkeys(("a", "0", " ", "\n", '"', "\\", "/", "?", "="))
    starts = dict.fromkeys(("",))
    for example in _examples(tree):
        for cut in range(1, len(example) + 1):
            units[example[cut - 1]] = None
            units[example[:cut]] = None
            starts[example[:cut]] = None
    texts = [(start, unit) for start in starts for unit in (start[-1:], start[-2:]) if unit]
    texts += [("", unit) for unit in units]
    texts += [("", unit + other) for unit in list(units)[:12] for other in list(units)[:12] if unit != other]
    step = max(1, len(texts) // MAX_TEXTS)
    return [_maker(start, unit) for start, unit in texts[::step]]


def _maker(start: str, unit: str) -> Callable[[int], str]:
    return lambda length: (start + unit * (length // len(unit) + 1))[: length - 1] + "\0"


def _examples(tree: Any) -> list[str]:
    """Return texts that the pattern matches or nearly matches: one for each alternative, with repetitions expanded."""
    found = [""]
    for code, value in tree:
        parts = _parts(code, value)
        longest = max(found, key=len)
        found = (
            [longest + part for part in parts] + found[:8] if len(parts) > 1 else [each + parts[0] for each in found]
        )
    return found[:60]


def _parts(code: Any, value: Any) -> list[str]:
    match code:
        case sre.LITERAL:
            return [chr(value)]
        case sre.NOT_LITERAL | sre.ANY:
            return ["a"]
        case sre.IN:
            return _members(value)
        case sre.BRANCH:
            return [text for branch in value[1] for text in _examples(branch)]
        case sre.SUBPATTERN:
            return _examples(value[3])
        case sre.ATOMIC_GROUP:
            return _examples(value)
        case sre.MAX_REPEAT | sre.MIN_REPEAT | sre.POSSESSIVE_REPEAT:
            return [text * max(1, min(value[0], 64)) for text in _examples(value[2])]
        case _:
            return [""]


_OF_CATEGORY = {
    sre.CATEGORY_DIGIT: "0",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_NOT_SPACE: "a",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_NOT_WORD: "-",
}


def _members(members: Any) -> list[str]:
    if members[0][0] is sre.NEGATE:
        return ["a"]
    first = []
    for code, value in members:
        if code is sre.LITERAL:
            first.append(chr(value))
        elif code is sre.RANGE:
            first.append(chr(value[0]))
        elif code is sre.CATEGORY:
            first.append(_OF_CATEGORY[value])
    return first[:2]
