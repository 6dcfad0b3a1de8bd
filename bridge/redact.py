"""Takes secrets out of headers, URLs and free text, for logs, tapes and messages.

Pure, linear in the length of its input whatever the input is (every repetition is possessive and every run of
characters is looked at once), and idempotent: what was redacted stays as it is. What a name gives away is masked
whatever its value; free text, where names are words too, is masked only where it looks like a credential.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(r"key|token(?!s)|secret|passw|pwd|auth|credential|signature|^sig$|jwt|cookie")
_HARMLESS_NAMES = frozenset(
    {
        "author",
        "authority",
        "cf-aig-cache-key",  # chosen by the client, and what one looks for when a cache misses
        "idempotency-key",
        "keyterm",  # Deepgram's words to listen for
        "keyterms",
        "keyword",
        "keywords",
        "proxy-authenticate",
        "sec-websocket-key",
        "www-authenticate",
    }
)


def is_secret_name(name: str) -> bool:
    """Whether the value of a header, a query parameter or a setting of that name is a secret."""
    lowered = name.lower()
    return lowered not in _HARMLESS_NAMES and _SECRET_NAME.search(lowered) is not None


# Headers.

_SCHEMES = r"Bearer|Basic|Token|Api-Key|Key|AWS4-HMAC-SHA256"
_SCHEME = re.compile(rf"(?:{_SCHEMES})\s++", re.IGNORECASE)


def headers(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same headers in the same order; of a secret only its scheme remains."""
    return [(name, _header_value(name, value)) for name, value in pairs]


def _header_value(name: str, value: str) -> str:
    if name.lower() == "sec-websocket-protocol":
        return _subprotocols(value)
    if not is_secret_name(name):
        return url(value)
    scheme = _SCHEME.match(value)
    return (scheme[0] if scheme else "") + REDACTED


def _subprotocols(value: str) -> str:
    """Browsers send credentials as `NAME.SECRET`, Deepgram's as the pair `token, SECRET`."""
    offered = [one.strip() for one in value.split(",")]
    before = ["", *offered]
    return ", ".join(
        REDACTED if last.lower() in ("token", "bearer") else _subprotocol(one)
        for last, one in zip(before, offered, strict=False)
    )


def _subprotocol(offered: str) -> str:
    name, dot, _ = offered.partition(".")
    return name + dot + REDACTED if dot and is_secret_name(name) else text(offered)


# URLs.

_PARAMETER = re.compile(r"([?&#;])([^=&#;?]++)=([^&#;]*+)")


def url(given: str) -> str:
    """A URL, or an endpoint with its query, without userinfo and without the values of secret parameters."""
    return text(_PARAMETER.sub(_parameter, given))


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={REDACTED}" if is_secret_name(unquote(found[2])) else found[0]


# Free text.

_USERINFO = re.compile(r"://[^/\s?#\"'<>]*@")

_SCHEMED = re.compile(
    rf"(?<![A-Za-z0-9_-])((?:{_SCHEMES})(?:\s{{1,3}}|%20))([A-Za-z0-9._~+/=:-]{{8,}}+)", re.IGNORECASE | re.ASCII
)
_WORDS_AFTER_BEARER = frozenset({"authentication", "authorization", "credential", "credentials"})

_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9_-])
    (?: ( sk- )                                       [A-Za-z0-9_-]{8,}+      # OpenAI and followers, Anthropic
      | ( AIza | gsk_ | xai- | hf_ | r8_ | pplx- | ghp_ )  [A-Za-z0-9_-]{16,}+
      | ( AKIA | ASIA )                               [A-Za-z0-9_-]{12,}+     # AWS
      | ( eyJ )                                       [A-Za-z0-9_-]{8,}+ (?: \. [A-Za-z0-9_-]++ ){1,4}+  # JWT
    )""",
    re.VERBOSE,
)

_NAME = re.compile(
    r"""(?<![A-Za-z0-9_-]) ([A-Za-z0-9_-]++)
    (?: ["']? \s{0,2} [:=] \s{0,2} | ["'],\s{0,2}(?=b?["']) ) (?: b?(["']) )?""",
    re.VERBOSE,
)
_VALUES = {
    None: re.compile(r"(?:\[redacted\]|[^\s\"'&,;<>()\[\]{}])++"),
    '"': re.compile(r"[^\"\n]++"),
    "'": re.compile(r"[^'\n]++"),
}
_NO_NAME = re.compile(r"(?:error|exception|warning|ed)$", re.IGNORECASE)
"""`KeyError: …` and `Unauthorized: …` name no secret."""
_WORDS = frozenset({"auth", "authentication", "credential", "credentials", "key", "keys", "signature", "token"})


def text(given: str) -> str:
    """Free text, such as an exception's message or a traceback, without what looks like a credential."""
    schemed = _SCHEMED.sub(_schemed, _USERINFO.sub(f"://{REDACTED}@", given))
    named = _mask_named(_SHAPES.sub(_shaped, schemed))
    # Again, because a masked value may have held the slash that kept a userinfo from being seen as one.
    return _USERINFO.sub(f"://{REDACTED}@", named)


def _schemed(found: re.Match[str]) -> str:
    scheme, credential = found[1], found[2]
    if scheme[:6].lower() == "bearer":
        secret = credential.lower().rstrip(".:") not in _WORDS_AFTER_BEARER
    else:
        secret = _looks_secret(credential)
    return scheme + REDACTED if secret else found[0]


def _shaped(found: re.Match[str]) -> str:
    return found[found.lastindex or 0] + REDACTED


def _looks_secret(value: str) -> bool:
    """Long, or not short and with a digit. What is redacted already does not count, so that nothing is masked twice."""
    rest = value.replace(REDACTED, "")
    return len(rest) >= 20 or (len(rest) >= 8 and any(map(str.isdigit, rest)))


def _mask_named(given: str) -> str:
    """Masks the value in `name=value`, `"name": "value"`, `('name', 'value')`, where the name is a secret's."""
    kept: list[str] = []
    at = 0
    for found in _NAME.finditer(given):
        name = found[1]
        if found.start() < at or not is_secret_name(name) or _NO_NAME.search(name):
            continue
        scheme = _SCHEME.match(given, found.end())
        start = scheme.end() if scheme else found.end()
        value = _VALUES[found[2]].match(given, start)
        if value and (_names_surely(given, found) or _looks_secret(value[0])):
            kept += given[at:start], REDACTED
            at = value.end()
    return "".join(kept) + given[at:]


def _names_surely(given: str, found: re.Match[str]) -> bool:
    """A word such as `key` may stand before a colon in any sentence; as a query parameter it names a secret."""
    return found[1].lower() not in _WORDS or given[max(found.start() - 1, 0)] in "?&"
