"""Mask secrets in headers, URLs and free text, for logs, tapes and messages. Pure.

The work is linear in the length of any input: repetitions are possessive, and no run of characters is scanned from each
of its positions. Masking is idempotent. A header or a query parameter is masked by its name, whatever its value. Free
text, where names are also words, is masked where it looks like a credential.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote

from bridge.redact import key_shapes
from bridge.redact.prefilter import build, finditer

REDACTED = "[redacted]"

_WORDS_IN_NAMES = (
    ("token", "(?!s|[_-]?(?:count|detail|id|limit|type|usage))"),
    *((word, "") for word in ("key", "secret", "passw", "pwd", "auth", "credential", "signature", "jwt", "cookie")),
)
"""Words in the names of secrets, each with a pattern for the text after it."""
_SECRET_NAME = re.compile("|".join((*map("".join, _WORDS_IN_NAMES), "^sig$")))
_NAME_WORDS = (*_WORDS_IN_NAMES, ("sig", ""))
NAME_HINTS = build(_NAME_WORDS)
"""Finds the places where a name that `is_secret_name` accepts may stand."""
_HARMLESS_NAMES = frozenset(
    {
        "author",
        "authority",
        "cf-aig-cache-key",  # chosen by the client, and needed to explain a cache miss
        "idempotency-key",
        "keyterm",  # Deepgram's words to listen for
        "keyterms",
        "keyword",
        "keywords",
        "prompt_cache_key",  # a field of OpenAI's answers
        "proxy-authenticate",
        "sec-websocket-key",
        "www-authenticate",
    }
)


def is_secret_name(name: str) -> bool:
    """Return True if the value of a header, a query parameter or a setting with this name is a secret."""
    lowered = name.lower()
    return lowered not in _HARMLESS_NAMES and _SECRET_NAME.search(lowered) is not None


def _mask_values(names: re.Pattern[str], value_of: Callable[[re.Match[str]], re.Match[str] | None], text: str) -> str:
    """Mask the values of the names found. A name inside a masked value is skipped."""
    kept: list[str] = []
    at = 0
    for name in names.finditer(text):
        value = value_of(name) if name.start() >= at else None
        if value:
            kept += text[at : value.start()], REDACTED
            at = value.end()
    return "".join(kept) + text[at:]


# Headers.

_SCHEMES = ("Bearer", "Basic", "Token", "Api-Key", "Key")
_SCHEME = re.compile(rf"(?:{'|'.join(_SCHEMES)}|AWS4-HMAC-SHA256)\s++", re.IGNORECASE)
_NAMED_PROTOCOL = re.compile(r"[A-Za-z0-9-]++\.")


def redact_headers(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the same headers in the same order; of a secret only its scheme remains."""
    return [(name, _header_value(name, value)) for name, value in pairs]


def _header_value(name: str, value: str) -> str:
    if name.lower() == "sec-websocket-protocol":
        return _subprotocols(value)
    if not is_secret_name(name):
        return redact_url(value)
    scheme = _SCHEME.match(value)
    return (scheme[0] if scheme else "") + REDACTED


def _subprotocols(value: str) -> str:
    """Mask credentials in subprotocols: browsers send `NAME.SECRET`, Deepgram's clients the pair `token, SECRET`."""
    offered = [name.strip() for name in value.split(",")]
    before = ["", *offered]
    return ", ".join(
        REDACTED if last.lower() in ("token", "bearer") else _subprotocol(name)
        for last, name in zip(before, offered, strict=False)
    )


def _subprotocol(offered: str) -> str:
    named = _NAMED_PROTOCOL.match(offered)
    return named[0] + REDACTED if named and is_secret_name(named[0]) else redact_text(offered)


# URLs.

_PARAMETER = re.compile(r"(?<=[?&#;])([^\s=&#;?\[\]]++)=")
_PARAMETER_VALUE = re.compile(r"[^&#;]++")


def redact_url(text: str) -> str:
    """Return a URL or an endpoint with its query, without userinfo and without the values of secret parameters."""
    return redact_text(_mask_values(_PARAMETER, _parameter_value, text))


def _parameter_value(name: re.Match[str]) -> re.Match[str] | None:
    return _PARAMETER_VALUE.match(name.string, name.end()) if is_secret_name(unquote(name[1])) else None


# Free text.

_USERINFO = re.compile(r"://[^/\s?#\"'<>]*@")

_SCHEME_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9_-])({'|'.join(_SCHEMES)})(?:\s{{1,3}}|%20)", re.IGNORECASE | re.ASCII)
_SCHEME_WORDS = [(scheme.lower(), r"(?=\s|%20)") for scheme in _SCHEMES]
_SCHEME_HINTS = build(_SCHEME_WORDS)
_CREDENTIAL = re.compile(r"[A-Za-z0-9._~+/=:-]{8,}+")
_PEM_WORD = "PRIVATE KEY"
_PEM = re.compile(r"(PRIVATE KEY(?: BLOCK)?-----)(?:[A-Za-z0-9+/=\s\\:,]|(?!--)-){16,}")
_WORDS_AFTER_BEARER = frozenset({"authentication", "authorization", "credential", "credentials"})

_SHAPES = re.compile(key_shapes.pattern())
_KEY_WORDS = [(begin.lower(), "") for begin in key_shapes.PREFIXES]
_KEY_HINTS = build(_KEY_WORDS)
HINTS = build((*_NAME_WORDS, *_SCHEME_WORDS, *_KEY_WORDS))
"""A text without any match has no secret name and nothing that looks like a credential."""

_NAME = re.compile(
    r"""(?<![A-Za-z0-9_-]) ([A-Za-z0-9_-]++)
    (?: ["'] \s{0,2} , \s{0,2} ["'][Vv]alue["'] \s{0,2} : \s{0,2}
      | ["'] \s{0,2} : \s{0,2} \{ \s{0,2} ["'](?:value|secret|key|token)["'] \s{0,2} : \s{0,2}
      | ["']? \s{0,2} [:=] \s{0,2} | (?P<comma> ["'],\s{0,2} ) (?=b?["']) ) (?: b?(?P<quote>["']) )?""",
    re.VERBOSE,
)
_PAIR_BEGINS = re.compile(r"[(\[]b?[\"']\Z")
_VALUES = {
    None: re.compile(r"(?:\[redacted\]|[^\s\"'&,;<>()\[\]{}])++"),
    '"': re.compile(r"[^\"\n]++"),
    "'": re.compile(r"[^'\n]++"),
}
_LITERALS = frozenset({"None", "True", "False", "null", "true", "false"})
_HARMLESS_NAME = re.compile(r"(?:error|exception|warning|ed)$|^(?:thought_?)?signature$", re.IGNORECASE)
"""Names of no secret: `KeyError: …`, `Unauthorized: …`, and the signatures with which models sign their thoughts."""
_WORDS = frozenset({"auth", "authentication", "credential", "credentials", "key", "keys", "token"})


_ONE_WORD = re.compile(r"[A-Za-z0-9_.,/+~-]*+")
"""Text that holds neither a name with a value, nor a scheme before a credential, nor userinfo."""


def redact_text(text: str) -> str:
    """Return free text, such as an exception message or a traceback, without anything that looks like a credential."""
    if _ONE_WORD.fullmatch(text):
        return _SHAPES.sub(_shaped, text)
    schemed = _mask_values(_SCHEME_IN_TEXT, _credential, _USERINFO.sub(f"://{REDACTED}@", text))
    named = _mask_values(_NAME, _named_value, _SHAPES.sub(_shaped, schemed))
    if _PEM_WORD in named:
        named = _PEM.sub(rf"\1{REDACTED}", named)
    # Again: a masked value may have contained the slash that prevented a match.
    return _USERINFO.sub(f"://{REDACTED}@", named)


def find_credentials(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of text that looks like a credential, whatever its name. Suitable for long texts.

    Spans exclude schemes and the prefixes of keys; they may overlap.
    """
    for scheme in finditer(_SCHEME_IN_TEXT, _SCHEME_HINTS, text):
        if credential := _credential(scheme):
            yield credential.span()
    for shape in finditer(_SHAPES, _KEY_HINTS, text):
        yield shape.end(shape.lastindex or 0), shape.end()


def _credential(scheme: re.Match[str]) -> re.Match[str] | None:
    found = _CREDENTIAL.match(scheme.string, scheme.end())
    if found is None:
        return None
    if scheme[1].lower() == "bearer":
        return None if found[0].lower().rstrip(".:") in _WORDS_AFTER_BEARER else found
    return found if looks_secret(found[0]) else None


def has_key_shape(value: str) -> bool:
    """Return True if the value begins like a key, so that it is found without a name."""
    return _SHAPES.match(value) is not None


def _shaped(found: re.Match[str]) -> str:
    return found[found.lastindex or 0] + REDACTED


def looks_secret(value: str) -> bool:
    """Return True if the value is long, or has at least eight characters and a digit. Masked parts do not count."""
    rest = value.replace(REDACTED, "")
    return (len(rest) >= 20 and any(map(str.isalnum, rest))) or (len(rest) >= 8 and any(map(str.isdigit, rest)))


def _named_value(name: re.Match[str]) -> re.Match[str] | None:
    """Return the secret in `name=value`, `"name": "value"` or `('name', 'value')`, without its scheme."""
    if not is_secret_name(name[1]):
        return None
    is_parameter = name.string[max(name.start() - 1, 0)] in "?&"  # elsewhere the name may be an ordinary word
    if not is_parameter and (_HARMLESS_NAME.search(name[1]) or not _is_named(name)):
        return None
    scheme = _SCHEME.match(name.string, name.end())
    value = _VALUES[name["quote"]].match(name.string, scheme.end() if scheme else name.end())
    if value is None or value[0] in _LITERALS:
        return None
    return value if is_parameter or name[1].lower() not in _WORDS or looks_secret(value[0]) else None


def may_be_secret_field(name: str) -> bool:
    """Return True if a JSON field with this name may hold a secret."""
    return is_secret_name(name) and _HARMLESS_NAME.search(name) is None


def is_secret_field(name: str, value: str) -> bool:
    """Return True if a JSON field with this name and text holds a secret; the name may also be an ordinary word."""
    if not may_be_secret_field(name) or value in _LITERALS:
        return False
    return name.lower() not in _WORDS or looks_secret(value)


def _is_named(name: re.Match[str]) -> bool:
    """Return False if a comma follows the name outside a pair: there it separates the values of a list or an object."""
    return not name["comma"] or _PAIR_BEGINS.search(name.string, max(name.start() - 3, 0), name.start()) is not None
