"""Where Redis is: a URL, or where one is to be read, for it may hold a password."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

_SCHEMES: Final = ("redis", "rediss", "unix")
_REFERENCE: Final = re.compile(r"(env|file):.+")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    given: str
    """What may be shown: a reference, or a URL without who asks and how."""
    url: str = field(default="", repr=False)
    """Empty while the reference has not been read."""

    def __str__(self) -> str:
        return self.given


@dataclass(frozen=True, slots=True)
class RedisUrlConverter:
    """What it refuses it does not show. The environment may hold a password, a file says where it is."""

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
            is_one = parts.scheme in _SCHEMES and bool(parts.port or parts.hostname or parts.path)
            # Behind the host it is a password's that was not percent-encoded, and what is before it would be shown.
            is_one = is_one and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
        except ValueError:
            is_one = False
        if not is_one:
            raise ValueError(f"this is not {self.expected}") from None
        return parts


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _holds_password(text: str) -> bool:
    """Of what may yet be no URL: rather once too often."""
    return ":" in text.partition("://")[2].rpartition("@")[0] or "password=" in text.lower()
