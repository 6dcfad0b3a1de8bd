"""A reference to a token that clients present, or its hash."""

import re
from dataclasses import dataclass, field
from typing import Final

_REFERENCE: Final = re.compile(r"(env|file|sha256):.+")


@dataclass(frozen=True, slots=True)
class TokenReference:
    """The reference, and the digest of the token."""

    reference: str = field(repr=False)
    digest: bytes = field(default=b"", repr=False)
    """SHA-256 of the token; empty until it has been read."""

    def __str__(self) -> str:
        return "sha256" if self.reference.startswith("sha256:") else self.reference


@dataclass(frozen=True, slots=True)
class TokenReferenceConverter:
    """Converter of a token reference; its messages never show the value, which may be the token."""

    expected: str = 'a token as "sha256:HEX", "env:NAME" or "file:PATH", never as plain text'

    def convert(self, value: object) -> TokenReference:
        if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
            raise ValueError(f"this is not {self.expected}")
        return TokenReference(value)

    def parse(self, text: str) -> TokenReference:
        return self.convert(text.strip())
