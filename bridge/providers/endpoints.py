"""Join endpoints to base URLs, and refuse endpoints that would leave their base URL.

Pure string work. An endpoint is never decoded for sending: accepted bytes are sent unchanged.
"""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

from bridge.errors import EndpointRefused

MAX_ENDPOINT_CHARS = 65_536
"""The limit of an outgoing request line."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target of one request. `base` is the URL to which the endpoint was joined: for breaker keys and logs."""

    scheme: str
    host: str
    """Lower case; an IPv6 address has no brackets."""
    port: int | None
    raw_path: bytes
    """Path and query, as the bytes to send."""
    base: str


@dataclass(frozen=True, slots=True)
class Base:
    """A parsed base URL. Its strings may contain placeholders; neither `url` nor `path` ends in a slash."""

    url: str
    scheme: str
    host: str
    port: int | None
    path: str
    prefixes: tuple[str, ...]
    """Suffixes of the path that an endpoint may repeat, longest first; suffixes with placeholders are left out. An SDK
    may know its provider by the bare host and call `openai/v1/…` there.
    """
    names: frozenset[str]
    """Placeholders to fill before a request can be sent."""


def quoted(text: str) -> str:
    """Return outside text for messages: ASCII, on one line, at most 64 characters."""
    return ascii(text if len(text) <= 64 else text[:64] + "...")


# Allowed content of endpoints.

_SEGMENT = r"[A-Za-z0-9_@~-][A-Za-z0-9_@~.:+,=!$&'()*-]*+"
_ORDINARY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*+(?:\?[A-Za-z0-9._~:/?@!$&'()*+,;=-]*+)?")
"""Matches harmless endpoints: no percent sign, no empty segment, no segment that begins with a dot."""

_UNSENDABLE = re.compile(r"[^A-Za-z0-9._~:/?@!$&'()*+,;=%-]|%(?![0-9A-Fa-f]{2})")
"""Characters that are not allowed in a request target: RFC 3986, sections 2 and 3.3. Square brackets are for hosts."""

_ESCAPE = re.compile(
    r"""
    (?P<absolute> \A [a-z][a-z0-9+.-]* :// )
  | (?P<doubled>  \A / | // )
  | (?P<dots>     (?: \A | / ) \.\.? (?: ; [^/]* )? (?: / | \Z ) )
  | (?P<control>  [\x00-\x1f\x7f] )
  | (?P<back>     \\ )
  | (?P<overlong> [\xc0\xc1] )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_ESCAPES = {
    "absolute": "is an absolute URL; give the part that follows the provider's base URL",
    "doubled": "contains an empty segment ('//'), which some servers read as another host; write one slash",
    "dots": "contains a segment '.' or '..', which would leave the provider's base URL",
    "control": "contains a control character such as NUL, CR or LF",
    "back": "contains a backslash, which some servers read as a slash",
    "overlong": "contains an overlong UTF-8 sequence, with which some servers leave the base URL",
}


def check(endpoint: str) -> None:
    """Raise EndpointRefused, with the reason, if `endpoint` could leave its base. It has no leading slash.

    The path is checked as it is, and decoded once and twice: proxies behind the base may decode it before they route.
    The query may contain anything that can be sent.
    """
    if len(endpoint) > MAX_ENDPOINT_CHARS:
        raise EndpointRefused(f"The endpoint is longer than {MAX_ENDPOINT_CHARS} characters.")
    if _ORDINARY.fullmatch(endpoint):
        return
    path = endpoint.partition("?")[0]
    if found := _ESCAPE.search(path):
        raise EndpointRefused(f"The endpoint {_ESCAPES[found.lastgroup or '']}.")
    if unsendable := _UNSENDABLE.search(endpoint):
        raise EndpointRefused(f"The endpoint contains {_described(unsendable[0])} at character {unsendable.start()}.")
    if "%" in path:
        _check_decoded(path)


def _described(character: str) -> str:
    if character == "%":
        return "a '%' that starts no escape; write %25 for the character itself"
    if character < " " or character == "\x7f":
        return f"a control character ({character!a}), which is not allowed in a request"
    return f"{character!a}, which is not allowed in a URL; percent-encode it"


def _check_decoded(path: str) -> None:
    once = unquote(path, "latin-1")
    for times, decoded in (("", once), (" twice", unquote(once, "latin-1"))):
        if found := _ESCAPE.search(decoded):
            raise EndpointRefused(f"The endpoint, percent-decoded{times}, {_ESCAPES[found.lastgroup or '']}.")


# Base URLs.

_BASE_URL = re.compile(
    r"""
    (?P<scheme> https? ) ://
    (?: \[ (?P<ipv6> [0-9a-f:.]+ ) \] | (?P<host> (?: [a-z0-9._-] | \{[a-z_]+\} )+ ) )
    (?: : (?P<port> [0-9]{1,5} ) )?
    (?P<path> (?: / (?: [a-z0-9._~:@!$&'()*+,;=-] | %[0-9a-f]{2} | \{[a-z_]+\} )* )* )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_BASE_FAULTS = (
    (re.compile(r"(?!https?://)", re.IGNORECASE | re.ASCII), "must begin with http:// or https://"),
    (re.compile(r"\w+://[^/?#]*@"), "must not contain a user or password: credentials belong into headers"),
    (re.compile(r"[^#]*\?"), "must not contain a query string: the endpoint has its own"),
    (re.compile(r"[^#]*#"), "must not contain a fragment (#)"),
)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def validate_base_url(url: str, placeholders: frozenset[str] = frozenset({"account_id"})) -> Base:
    """Parse a base URL. Raises ValueError with the reason; the message never contains the URL.

    `placeholders` are the names allowed in it as `{name}`.
    """
    for pattern, fault in _BASE_FAULTS:
        if pattern.match(url):
            raise ValueError(f"base_url {fault}")
    parts = _BASE_URL.fullmatch(url)
    if parts is None or not 0 < int(parts["port"] or 1) < 65_536:
        raise ValueError("base_url is not a valid URL: check its host, port and characters")
    path = parts["path"].rstrip("/")
    if found := _ESCAPE.search(path[1:]) or _ESCAPE.search(unquote(path[1:], "latin-1")):
        raise ValueError(f"base_url {_ESCAPES[found.lastgroup or '']}")
    names = frozenset(_PLACEHOLDER.findall(url))
    if unknown := names - placeholders:
        known = ", ".join(f"{{{name}}}" for name in sorted(placeholders))
        raise ValueError(f"base_url contains {{{min(unknown)}}}; known placeholders: {known}")
    segments = path.split("/")[1:]
    ends = ("/".join(segments[start:]) for start in range(len(segments)))
    return Base(
        url=url.rstrip("/"),
        scheme=parts["scheme"].lower(),
        host=(parts["ipv6"] or parts["host"]).lower(),
        port=int(parts["port"]) if parts["port"] else None,
        path=path,
        prefixes=tuple(end for end in ends if "{" not in end),
        names=names,
    )


_HOST_NAME = re.compile(r"[A-Za-z0-9-]+")
_PATH_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # a deployment may have the name gpt-4.1
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_AWS_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}")  # us-east-1, us-iso-east-1, eusc-de-east-1
_ACCOUNT_ID = re.compile(r"[0-9A-Fa-f]{32}")


def substitute(base: Base, values: dict[str, str]) -> Base:
    """Fill the placeholders of `base`.

    Raises EndpointRefused for a value that is not a plain name: it could change the host or leave the path.
    """
    if not base.names:
        return base
    url, host, path = base.url, base.host, base.path
    for name in base.names:
        value = values[name]
        if name == "account_id" and not _ACCOUNT_ID.fullmatch(value):
            raise EndpointRefused(
                f"The account id in the gateway's URL must be 32 hex digits for this provider, not {quoted(value)}."
            )
        in_host = f"{{{name}}}" in host
        if not (_HOST_NAME if in_host else _PATH_NAME).fullmatch(value):
            allowed = "letters, digits, hyphens" if in_host else "letters, digits, hyphens, and dots within"
            raise EndpointRefused(f"The {name} must be a plain name ({allowed}), not {quoted(value)}.")
        if name == "region" and base.host.endswith(_AWS_HOSTS):
            _check_aws_region(value)
        url, host, path = (text.replace(f"{{{name}}}", value) for text in (url, host, path))
    if max(map(len, host.split("."))) > 63:
        raise EndpointRefused(f"The endpoint makes a host name with a part longer than 63 characters: {quoted(host)}.")
    return replace(base, url=url, host=host.lower(), path=path, names=frozenset())


def _check_aws_region(region: str) -> None:
    """Raise EndpointRefused for a name that is not a region.

    `bedrock-runtime.s3.amazonaws.com` could be anyone's bucket.
    """
    if len(region) <= 63 and not _AWS_REGION.fullmatch(region.lower()):
        raise EndpointRefused(f"The region must be one of AWS, such as us-east-1, not {quoted(region)}.")


def join(base: Base, endpoint: str) -> Target:
    """Return the target of a checked endpoint below a filled base. A prefix such as `v1` in both is used once."""
    rest = next((endpoint[len(prefix) :] for prefix in base.prefixes if _begins_with(endpoint, prefix)), None)
    if rest is not None:
        path = base.path + rest
    elif endpoint and endpoint[0] != "?":
        path = f"{base.path}/{endpoint}"
    else:
        path = (base.path or "/") + endpoint
    return Target(base.scheme, base.host, base.port, path.encode("ascii"), base.url)


def endpoint_of(base: Base, rest: str) -> str:
    """Return the endpoint that `join` maps to `rest`, also if `rest` begins with a prefix."""
    return f"{base.prefixes[0]}/{rest}" if any(_begins_with(rest, prefix) for prefix in base.prefixes) else rest


def _begins_with(endpoint: str, prefix: str) -> bool:
    return endpoint.startswith(prefix) and endpoint[len(prefix) : len(prefix) + 1] in ("", "/", "?")


_TARGET_URL = re.compile(
    r"https://(?P<host>[a-z0-9.-]+)(?::443)?(?:/(?P<endpoint>.*))?", re.IGNORECASE | re.ASCII | re.DOTALL
)


def target_from_header(url: str, hosts: tuple[str, ...]) -> Target:
    """Return the target of a client's URL. Raises EndpointRefused unless it is https and below one of `hosts`."""
    parts = _TARGET_URL.fullmatch(url)
    host = parts["host"].lower() if parts else ""
    if parts is None or not any(host == known or host.endswith("." + known) for known in hosts):
        allowed = " or ".join(f"https://{known}/ and hosts below it" for known in hosts)
        raise EndpointRefused(
            f"The URL in the request's headers may only be {allowed or 'one that the configuration allows'}."
        )
    endpoint = parts["endpoint"] or ""
    check(endpoint)
    return Target("https", host, None, b"/" + endpoint.encode("ascii"), f"https://{host}")
