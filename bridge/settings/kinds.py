"""Value types of settings: one small converter class each, the same for TOML, JSON, headers and environment. Pure."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LONGEST_MS = 2**31 - 1
"""About 25 days: the longest wait that every event loop and selector supports."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,40}")
_SPELLINGS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class OutOfRangeError(ValueError):
    """A value of the right type that is too small or too large; `nearest` is the closest allowed value."""

    def __init__(self, message: str, nearest: object) -> None:
        super().__init__(message)
        self.nearest = nearest


class Converter(Protocol):
    """Convert a value. Both methods raise ValueError that names the value, shortened, and the expected type."""

    @property
    def expected(self) -> str: ...

    def convert(self, value: object) -> object:
        """Convert a value from JSON, TOML or a program."""

    def parse(self, text: str) -> object:
        """Convert a text from a header or the environment."""


def shown(value: object) -> str:
    """Return a short form of a value for messages, in JSON notation where Python's differs."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else reprlib.repr(value)


def refusal(value: object, expected: str) -> ValueError:
    """Return the error that a converter raises."""
    return ValueError(f"{shown(value)} is not {expected}")


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number.

    A float without a fraction is accepted, a boolean is not. A negative amount of a unit is refused.
    """

    low: int = 0
    high: int | None = None
    unit: str = ""

    @property
    def expected(self) -> str:
        number = f"a whole number of {self.unit}" if self.unit else "a whole number"
        return f"{number}, {self.low} or more" if self.high is None else f"{number} from {self.low} to {self.high}"

    def convert(self, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise refusal(value, self.expected)
        if self.unit and value < 0:
            raise refusal(value, self.expected)  # clamped to 0, a duration would mean the opposite: no limit
        nearest = max(self.low, value if self.high is None else min(value, self.high))
        if nearest != value:
            raise OutOfRangeError(str(refusal(value, self.expected)), nearest)
        return value

    def parse(self, text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text.strip()):
            raise refusal(text, self.expected)
        return self.convert(int(text))


@dataclass(frozen=True, slots=True)
class NumberOrZero:
    """A number that 0 switches off."""

    number: Number

    @property
    def expected(self) -> str:
        return f"{self.number.expected}, or 0 for none"

    def convert(self, value: object) -> int:
        return 0 if value == 0 and not isinstance(value, bool) else self.number.convert(value)

    def parse(self, text: str) -> int:
        return 0 if text.strip() == "0" else self.number.parse(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a fixed set of words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        *most, last = (f'"{word}"' for word in self.words)
        return f"{', '.join(most)} or {last}"

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise refusal(value, self.expected)
        return value

    def parse(self, text: str) -> str:
        return self.convert(text.strip().lower())


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean value."""

    expected: str = "true or false"

    def convert(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise refusal(value, self.expected)
        return value

    def parse(self, text: str) -> bool:
        try:
            return _SPELLINGS[text.strip().lower()]
        except KeyError:
            raise refusal(text, self.expected) from None


@dataclass(frozen=True, slots=True)
class Text:
    """A non-empty text."""

    expected: str = "a non-empty string"

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise refusal(value, self.expected)
        return value

    def parse(self, text: str) -> str:
        return self.convert(text.strip())


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that matches `pattern` completely."""

    pattern: str
    expected: str

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise refusal(value, self.expected)
        return value

    def parse(self, text: str) -> str:
        return self.convert(text.strip())


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file. Access is checked later, when the base folder is known."""

    expected: str = "the path of a file"

    def convert(self, value: object) -> Path:
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or not value:
            raise refusal(value, self.expected)
        return Path(value).expanduser()

    def parse(self, text: str) -> Path:
        return self.convert(text)


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts that match `pattern`, converted to lower case for comparison with browser headers."""

    pattern: str
    expected: str

    def convert(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise refusal(value, self.expected)
        return tuple(self._convert_item(item) for item in value)

    def parse(self, text: str) -> tuple[str, ...]:
        return self.convert(text.replace(",", " ").split())

    def _convert_item(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value.lower()):
            raise refusal(value, self.expected)
        return value.lower()
