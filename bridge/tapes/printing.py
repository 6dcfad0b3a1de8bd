"""What a tape holds, as a terminal may have it."""

import json
from collections.abc import Iterator

from bridge.terminal import one_line
from bridge.upstream.tape_lines import Pairs


def headers(pairs: Pairs) -> Iterator[str]:
    return (f"  {one_line(name)}: {one_line(value)}" for name, value in pairs)


def shown(data: bytes) -> str:
    """Text as a string of JSON, other bytes by their number."""
    try:
        return one_line(json.dumps(data.decode(), ensure_ascii=False))
    except UnicodeDecodeError:
        return f"{len(data)} bytes"
