"""Suggest a known name for one that is not. Pure."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.72
_MAX_CHARS = 64
"""The comparison takes the product of both lengths."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` resembles most, in whichever case; None if none resembles it."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name[:_MAX_CHARS].lower(), by_lower, n=1, cutoff=_CUTOFF)
    return by_lower[found[0]] if found else None
