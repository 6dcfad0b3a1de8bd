"""What a value of a setting may be: one small class per kind, the same for TOML, JSON, headers and environment."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LONGEST_MS = 2**31 - 1
"""About 25 days: the longest wait that every loop and every selector takes."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,40}")
_SPELLINGS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class OutOfRangeError(ValueError):
    """A value of the right type but too small or too large; `nearest` is the closest one that is allowed."""

    def __init__(self, message: str, nearest: object) -> None:
        super().__init__(message)
        self.nearest = nearest


class Converter(Protocol):
    """Both methods raise ValueError that says what came, in short, and what is wanted."""

    @property
    def expected(self) -> str: ...

    def convert(self, value: object) -> object:
        """Take a value that JSON, TOML or a program gave."""

    def parse(self, text: str) -> object:
        """Take a value that came as text, from a header or the environment."""


def shown(value: object) -> str:
    """What came, for a message: short, and in JSON's words where Python's differ."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else reprlib.repr(value)


def refusal(value: object, wants: str) -> ValueError:
    """What a kind raises."""
    return ValueError(f"{shown(value)} is not {wants}")


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number. A float without a fraction is one; a boolean is none. A negative amount of a unit is refused."""

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
            raise refusal(value, self.expected)  # clamped to 0, a duration could mean the opposite: no limit
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
    """A number that is switched off by 0."""

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
    """One of a few words."""

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
    expected: str = "a text that is not empty"

    def convert(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise refusal(value, self.expected)
        return value

    def parse(self, text: str) -> str:
        return self.convert(text.strip())


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that all of `pattern` describes."""

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
    """The path of a file; whether it can be read is asked elsewhere, once it is known what it is relative to."""

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
    """A list of texts that match `pattern`, kept in lower case: they are compared with what browsers send so."""

    pattern: str
    expected: str

    def convert(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise refusal(value, self.expected)
        return tuple(self._convert_one(one) for one in value)

    def parse(self, text: str) -> tuple[str, ...]:
        return self.convert(text.replace(",", " ").split())

    def _convert_one(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value.lower()):
            raise refusal(value, self.expected)
        return value.lower()
