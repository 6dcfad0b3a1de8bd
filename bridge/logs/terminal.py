"""Make text from clients and providers safe for a terminal.

Untrusted text passes one of these functions right before output. Control characters could move the cursor, write to the
clipboard or forge a line; bidirectional characters could make a line read differently.
"""

import re
from typing import Final, TextIO

_HARMFUL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line feed; DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional
    "\u2028\u2029\ud800-\udfff]"  # separators of lines and paragraphs; lone surrogates
)
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def one_line(text: str) -> str:
    """Return the text on one line, with an escape such as `\\x1b` for every character that cannot be printed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def readable(text: str) -> str:
    """Return the text with U+FFFD in place of harmful characters. Lines, tabs and words in any script are unchanged."""
    return _HARMFUL.sub(_REPLACEMENT, text)


def json_text(raw: bytes) -> bytes:
    """Return the same JSON with escapes such as `\\u009b` for harmful characters. Line feeds between values stay."""
    text = raw.decode(errors="replace")  # some terminals treat a byte that is not UTF-8 as a control character
    is_harmless = _REPLACEMENT not in text and _HARMFUL.search(text) is None
    return raw if is_harmless else _HARMFUL.sub(_escaped, text).encode()


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
