"""Suggest a known name in place of an unknown one. Pure."""

import difflib
from collections.abc import Iterable

_CUTOFF = 0.72
_MAX_CHARS = 64
"""Bound on the compared length: the comparison takes time proportional to the product of both lengths."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, ignoring case; None if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name[:_MAX_CHARS].lower(), by_lower, n=1, cutoff=_CUTOFF)
    return by_lower[found[0]] if found else None
