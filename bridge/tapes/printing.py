"""What a tape holds, as a terminal may have it."""

import json
from collections.abc import Iterator

from bridge.upstream.tape_lines import Pairs


def headers(pairs: Pairs) -> Iterator[str]:
    return (f"  {printable(name)}: {printable(value)}" for name, value in pairs)


def shown(data: bytes) -> str:
    """Text as a string of JSON, other bytes by their number."""
    try:
        return printable(json.dumps(data.decode(), ensure_ascii=False))
    except UnicodeDecodeError:
        return f"{len(data)} bytes"


def printable(text: str) -> str:
    """A tape is a stranger's text: on a terminal it must not move the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
