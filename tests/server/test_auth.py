"""Authorize handshakes and read their options."""

import hashlib
from typing import Any

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.errors import BadField, OriginRefused, Unauthorized
from bridge.server.auth import check_origin, check_token, heartbeat_s, is_compat, offered_protocols, revalidate_token


def gateway(*tokens: str, **fields: Any) -> Gateway:
    return Gateway(
        "mine", tuple(Token(f"token-{token}", hashlib.sha256(token.encode()).digest()) for token in tokens), **fields
    )


OPEN = gateway()
CLOSED = gateway("secret", "other")

# Subprotocols.


@pytest.mark.parametrize(
    ("headers", "offered"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], ["a"]),
        (["a, b,c ,\td"], ["a", "b", "c", "d"]),
        (["cf-aig-authorization.secret"], ["cf-aig-authorization.secret"]),
        (["b, a", "", "c"], ["b", "a", "c"]),
    ],
)
def test_subprotocols_are_offered_in_the_client_s_order(headers: list[str], offered: list[str]) -> None:
    assert offered_protocols(headers) == offered


# Tokens.


@pytest.mark.parametrize(
    ("header", "offered"),
    [
        ("Bearer secret", []),
        ("bearer secret", []),
        ("BEARER  secret ", []),
        ("secret", []),
        (" secret ", []),
        ("Bearer other", []),
        (None, ["cf-aig-authorization.secret"]),
        (None, ["chat", "cf-aig-authorization.other"]),
        ("Bearer secret", ["cf-aig-authorization.wrong"]),
    ],
)
def test_a_token_is_read_from_a_header_or_a_subprotocol(header: str | None, offered: list[str]) -> None:
    check_token(CLOSED, header, offered)


@pytest.mark.parametrize(
    ("header", "offered"),
    [
        (None, []),
        (None, ["chat"]),
        (None, ["cf-aig-authorization."]),
        (None, ["cf-aig-authorization.wrong"]),
        (None, ["openai-insecure-api-key.secret"]),
        (None, ["secret"]),
        ("", []),
        ("Bearer", []),
        ("Bearer ", []),
        ("Bearer wrong", []),
        ("Bearer Secret", []),
        ("Bearer secret other", []),
        ("Basic secret", []),
        ("token-secret", []),
        ("\udcff", []),
        ("Bearer wrong", ["cf-aig-authorization.secret"]),
    ],
)
def test_a_gateway_with_tokens_requires_one_of_them(header: str | None, offered: list[str]) -> None:
    with pytest.raises(Unauthorized, match=r"^Unauthorized") as raised:
        check_token(CLOSED, header, offered)
    assert (raised.value.code, raised.value.status) == (2009, 401)
    assert "wrong" not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("header", [None, "", "Bearer whatever"])
def test_an_open_gateway_requires_no_token(header: str | None) -> None:
    check_token(OPEN, header, ["cf-aig-authorization.whatever"])


# Hosts and origins.

LOOPBACK = [
    "localhost",
    "LocalHost",
    "localhost:8787",
    "127.0.0.1",
    "127.1.2.3:80",
    "[::1]",
    "[::1]:8787",
    "a.localhost",
]
ELSEWHERE = [
    "",
    "evil.example",
    "evil.example:8787",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evillocalhost",
    "0.0.0.0",
    "192.168.0.1",
    "[::2]",
    "[::1",
    "[::1]evil.example",
    "evil.example@127.0.0.1",
    "127.0.0.1@evil.example",
    "localhost:evil",
    "localhost/evil",
    "localhost#evil",
    "localhost?evil",
    "local\thost",
    "localhost evil",
    "localhost\n",
    "2130706433",
    "127.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_an_open_gateway_accepts_names_of_loopback(host: str) -> None:
    check_origin(OPEN, host, None)
    check_origin(OPEN, host, f"http://{host}")
    check_origin(OPEN, host, f"https://{host}")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_an_open_gateway_refuses_other_names(host: str) -> None:
    with pytest.raises(OriginRefused, match=r"^host .*allowed_hosts$") as raised:
        check_origin(OPEN, host, None)
    assert (raised.value.code, raised.value.status) == (9009, 403)


@pytest.mark.parametrize(
    "origin",
    [
        *(f"http://{host}" for host in ELSEWHERE),
        "null",
        "",
        "localhost",
        "//localhost",
        "http:localhost",
        "http://localhost, http://evil.example",
        "http://evil.example#@localhost",
        "file://",
        "chrome-extension://abcdefgh",
    ],
)
def test_pages_from_elsewhere_do_not_reach_an_open_gateway(origin: str) -> None:
    with pytest.raises(OriginRefused, match=r"^origin .*allowed_origins$"):
        check_origin(OPEN, "localhost:8787", origin)


@pytest.mark.parametrize(
    ("listed", "host", "is_let_in"),
    [
        ("bridge.example", "bridge.example", True),
        ("bridge.example", "Bridge.Example:8787", True),
        ("bridge.example:8787", "bridge.example:8787", True),
        ("bridge.example:8787", "bridge.example:1", False),
        ("bridge.example", "a.bridge.example", False),
        ("*", "anything.example", True),
        ("*", "", True),
    ],
)
def test_hosts_may_be_listed_with_or_without_their_port(listed: str, host: str, is_let_in: bool) -> None:
    listing = gateway(allowed_hosts=(listed,))
    if is_let_in:
        check_origin(listing, host, None)
    else:
        with pytest.raises(OriginRefused):
            check_origin(listing, host, None)


@pytest.mark.parametrize(
    ("listed", "origin", "is_let_in"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "https://APP.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://app.example.evil.example", False),
        ("chrome-extension://abc", "chrome-extension://abc", True),
        ("*", "null", True),
    ],
)
def test_origins_are_compared_in_full(listed: str, origin: str, is_let_in: bool) -> None:
    listing = gateway(allowed_origins=(listed,))
    if is_let_in:
        check_origin(listing, "localhost", origin)
    else:
        with pytest.raises(OriginRefused):
            check_origin(listing, "localhost", origin)


def test_a_gateway_with_tokens_checks_neither_host_nor_origin() -> None:
    check_origin(CLOSED, "evil.example", "https://evil.example")


def test_a_refusal_has_a_bounded_length() -> None:
    for host, origin in (("x" * 10_000, None), ("localhost", "http://" + "x" * 10_000)):
        with pytest.raises(OriginRefused) as raised:
            check_origin(OPEN, host, origin)
        assert len(str(raised.value)) < 250


# The query.


@pytest.mark.parametrize(
    ("query", "seconds"),
    [({}, None), ({"heartbeat": "1"}, 1.0), ({"heartbeat": "2.5"}, 2.5), ({"heartbeat": "3600"}, 3600.0)],
)
def test_a_heartbeat_is_requested_in_seconds(query: dict[str, str], seconds: float | None) -> None:
    assert heartbeat_s(query) == seconds


@pytest.mark.parametrize("value", ["", "0", "0.9", "-1", "3601", "nan", "inf", "often", "1s"])
def test_a_heartbeat_out_of_bounds_is_refused(value: str) -> None:
    with pytest.raises(BadField, match=r"^heartbeat: "):
        heartbeat_s({"heartbeat": value})


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize(("query", "requested"), [({}, False), ({"compat": "cloudflare"}, True)])
def test_the_url_or_the_gateway_may_request_compatibility_with_cloudflare(
    query: dict[str, str], requested: bool, configured: bool
) -> None:
    assert is_compat(query, gateway(compat=configured)) is (requested or configured)


@pytest.mark.parametrize("value", ["", "true", "Cloudflare"])
def test_other_values_of_compat_are_refused(value: str) -> None:
    with pytest.raises(BadField, match=r"^compat: "):
        is_compat({"compat": value}, OPEN)


# Tokens, later on.


def test_a_client_stays_authorized_while_its_token_exists() -> None:
    [first, _] = CLOSED.tokens
    assert revalidate_token(CLOSED, first) is CLOSED
    renewed = gateway("secret", "third")
    assert revalidate_token(renewed, first) is renewed


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (gateway("other"), "the token 'token-secret' is no longer valid for gateway 'mine'"),
        (Gateway("mine", (Token("token-secret", b"another"),)), "is no longer valid for"),
    ],
)
def test_a_removed_or_changed_token_is_refused(now: Gateway, message: str) -> None:
    with pytest.raises(Unauthorized, match=message):
        revalidate_token(now, CLOSED.tokens[0])


def test_a_gateway_that_gets_tokens_requires_one() -> None:
    assert revalidate_token(OPEN, None) is OPEN
    with pytest.raises(Unauthorized, match="now requires a token"):
        revalidate_token(CLOSED, None)


def test_a_gateway_that_becomes_open_accepts_all_clients() -> None:
    assert revalidate_token(OPEN, CLOSED.tokens[0]) is OPEN
