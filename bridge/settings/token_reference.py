"""A token that somebody has to present, as the configuration says where it is, or what its hash is."""

import re
from dataclasses import dataclass, field
from typing import Final

_REFERENCE: Final = re.compile(r"(env|file|sha256):.+")


@dataclass(frozen=True, slots=True)
class TokenReference:
    given: str = field(repr=False)
    digest: bytes = field(default=b"", repr=False)
    """SHA-256 of the token; empty while it has not been read."""

    def __str__(self) -> str:
        return "sha256" if self.given.startswith("sha256:") else self.given


@dataclass(frozen=True, slots=True)
class TokenReferenceConverter:
    """What it refuses it does not show: it may be the token."""

    expected: str = 'a token as "sha256:HEX", "env:NAME" or "file:PATH", never as plain text'

    def convert(self, value: object) -> TokenReference:
        if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
            raise ValueError(f"this is not {self.expected}")
        return TokenReference(value)

    def parse(self, text: str) -> TokenReference:
        return self.convert(text.strip())
