"""The Redis URL, or a reference to it, because it may contain a password."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

_SCHEMES: Final = ("redis", "rediss", "unix")
_REFERENCE: Final = re.compile(r"(env|file):.+")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis URL or a reference that is still to be read."""

    shown: str
    """The form that may be shown: a reference, or a URL without user, password and options."""
    url: str = field(default="", repr=False)
    """Empty until the reference has been read."""

    def __str__(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class RedisUrlConverter:
    """Converter of a Redis URL; its messages never show the value.

    The environment may contain a password, a file only a reference.
    """

    expected: str = 'a URL of Redis (redis://, rediss://, unix://); with a password in it, as "env:NAME" or "file:PATH"'

    def convert(self, value: object) -> RedisUrl:
        if not isinstance(value, str) or _holds_password(value):
            raise ValueError(f"this is not {self.expected}")
        return self.parse(value)

    def parse(self, text: str) -> RedisUrl:
        text = text.strip()
        return RedisUrl(text) if _REFERENCE.fullmatch(text) else RedisUrl(_shown(self._parts(text)), text)

    def _parts(self, text: str) -> SplitResult:
        try:
            parts = urlsplit(text)
            is_valid = parts.scheme in _SCHEMES and bool(parts.port or parts.hostname or parts.path)
            # An "@" after the host belongs to a password that is not percent-encoded, which would be shown.
            is_valid = is_valid and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ValueError(f"this is not {self.expected}") from None
        return parts


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _holds_password(text: str) -> bool:
    """Return True if the text, valid URL or not, may contain a password."""
    return ":" in text.partition("://")[2].rpartition("@")[0] or "password=" in text.lower()
