"""A quick look at a body: whether any of it may be a secret. Most bodies hold none, and looking closely takes ten times
as long. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

WORDS: Final = (
    # In the names that `redact.is_secret_name` knows.
    *("key", "secret", "passw", "pwd", "auth", "credential", "signature", "sig", "jwt", "cookie"),
    # Schemes, and the beginnings of keys, that `redact.credentials` knows; in lower case.
    *("bearer", "basic", "sk-", "aiza", "gsk_", "xai-", "hf_", "r8_", "pplx-", "ghp_", "akia", "asia", "aws4-", "eyj"),
    "://",  # before a password
)
_TOKEN: Final = "token", "(?!s|[_-]?(?:count|detail|id|limit|type|usage))"
"""The one word that is in every answer, of its tokens' counts."""
_ESCAPED_NAME: Final = "%(?=[0-9a-f]{2}[^=]{0,64}=)"
"""Of a parameter: it may spell any word."""

_FREQUENT_FIRST: Final = 'etaoin srhldcu":,mfpgwy.bvkxjqz-_/8'


def _by_rarest_letter(words: Iterable[tuple[str, str]]) -> str:
    """A pattern for words, each with what must follow it.

    A search goes from letter to letter that begins one of its alternatives, and stops at each: at a word's rarest one
    it stops least often.
    """
    found = defaultdict(list)
    for word, following in words:
        at = max(range(len(word)), key=lambda place: _rarity(word[place]))
        before, after = re.escape(word[: at + 1]), re.escape(word[at + 1 :])
        found[re.escape(word[at])].append(f"(?<={before}){after}{following}")
    return "|".join(f"{letter}(?:{'|'.join(alternatives)})" for letter, alternatives in found.items())


def _rarity(letter: str) -> int:
    return (_FREQUENT_FIRST + letter).index(letter)


_SUSPECT: Final = re.compile(
    "|".join((_by_rarest_letter([_TOKEN, *((word, "") for word in WORDS)]), _ESCAPED_NAME)).encode()
)


def is_suspect(body: bytes) -> bool:
    """False only of a body in which `tape_redaction.masked` would find nothing by its looks."""
    return _SUSPECT.search(body.lower()) is not None
