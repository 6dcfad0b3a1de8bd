"""Calls that a token may make, and uses of stored keys."""

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.errors import NotAllowed
from bridge.policy.scopes import RequestedCall, check_call
from bridge.providers.model_endpoints import is_model_endpoint, is_model_socket

CHAT = ("v1/chat/completions",)
FILES = ("v1/files",)


def token(**scopes: object) -> Token:
    return Token("ci", b"", **scopes)  # type: ignore[arg-type]  # scopes of the test


def call_of(
    endpoints: tuple[str, ...] = CHAT,
    method: str = "POST",
    model: str | None = "gpt-4o-mini",
    *,
    socket: bool = False,
    stored: bool = False,
    provider: str = "openai",
) -> RequestedCall:
    calls_model = is_model_socket(endpoints[0]) if socket else is_model_endpoint(method, endpoints[0])
    return RequestedCall(provider, method, endpoints, model, calls_model, socket, stored)


def allows(token: Token, call: RequestedCall, gateway: Gateway = Gateway("main")) -> bool:  # noqa: B008 - it is frozen
    try:
        check_call(token, gateway, call)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("scopes", "call", "allowed"),
    [
        ({}, call_of(FILES, "DELETE", None), True),
        ({"methods": {"POST"}}, call_of(), True),
        ({"methods": {"POST"}}, call_of(method="DELETE"), False),
        ({"methods": {"POST"}}, call_of(("v1/realtime",), "GET", socket=True), False),
        ({"models": {"gpt-4o-mini"}}, call_of(), True),
        ({"models": {"gpt-4o"}}, call_of(), False),
        ({"models": {"gpt-4o*"}}, call_of(), True),
        ({"models": {"claude-*", "gpt-4o-mini"}}, call_of(), True),
        ({"models": {"gpt-4o-mini"}}, call_of(model=None), False),
        ({"models": {"gpt-4o-mini"}}, call_of(FILES, model=None), False),
        ({"models": {"gpt-4o-mini"}}, call_of(("v1/models",), "GET", None), True),
        ({"models": {"gpt-4o-mini"}}, call_of(("v1/models",), "GET", None, socket=True), False),
        ({"endpoints": {"v1/chat"}}, call_of(), True),
        ({"endpoints": {"chat/completions"}}, call_of(), True),
        ({"endpoints": {"v1/chat/completions"}}, call_of(("/chat/completions?x=1",)), True),
        ({"endpoints": {"v1/cha"}}, call_of(), False),
        ({"endpoints": {"chat/completions"}}, call_of(("chat/completions-of-others",)), False),
        ({"endpoints": {"chat/completions"}}, call_of(("v1/files?x=/chat/completions",)), False),
        ({"endpoints": {"chat"}}, call_of(("chat%2F..%2Ffiles",)), False),
        ({"endpoints": {"chat/completions"}}, call_of(("resource/gpt/chat/completions", "chat/completions")), True),
        ({"endpoints": {"v1/files"}, "methods": {"GET"}}, call_of(FILES, "GET", None), True),
        ({"endpoints": {"v1/files"}, "methods": {"GET"}}, call_of(FILES, "POST", None), False),
    ],
)
def test_a_call_must_be_within_every_scope_of_the_token(
    scopes: dict[str, frozenset[str]], call: RequestedCall, allowed: bool
) -> None:
    assert allows(token(**scopes), call) is allowed


STORED = [
    pytest.param(call_of(stored=True), True, id="a model endpoint"),
    pytest.param(call_of(("v1/models",), "GET", None, stored=True), True, id="the list of models"),
    pytest.param(call_of(("v1/models/gpt",), "DELETE", None, stored=True), False, id="deletes a model"),
    pytest.param(call_of(CHAT, "GET", stored=True), False, id="lists stored completions"),
    pytest.param(call_of(FILES, stored=True), False, id="uploads a file"),
    pytest.param(call_of(("v1/files/f/content",), "GET", None, stored=True), False, id="reads a file"),
    pytest.param(call_of(("v1/responses/r",), "GET", None, stored=True), False, id="reads a stored response"),
    pytest.param(call_of(("v1/batches",), "GET", None, stored=True), False, id="lists batches"),
    pytest.param(call_of(("v1/organization/admin_api_keys",), stored=True), False, id="makes a key"),
    pytest.param(
        call_of(("v1/realtime?model=m",), "GET", socket=True, stored=True), True, id="opens a session with a model"
    ),
    pytest.param(call_of(("v1/realtime?call_id=c",), "GET", socket=True, stored=True), False, id="joins a call"),
    pytest.param(call_of(("v1/files",), "GET", socket=True, stored=True), False, id="reads files by a handshake"),
    pytest.param(call_of(("v1/models",), "GET", socket=True, stored=True), False, id="lists models by a handshake"),
    pytest.param(call_of(CHAT, "GET", socket=True, stored=True), False, id="lists completions by a handshake"),
]


@pytest.mark.parametrize(("call", "allowed"), STORED)
def test_a_stored_key_is_used_for_model_calls_only(call: RequestedCall, allowed: bool) -> None:
    assert allows(token(), call) is allowed
    assert allows(token(methods={"GET", "POST", "DELETE"}), call) is allowed
    assert allows(token(stored_key_access="models"), call, Gateway("main", stored_key_access="full")) is allowed


@pytest.mark.parametrize(("call", "allowed"), STORED)
def test_the_configuration_may_allow_more(call: RequestedCall, allowed: bool) -> None:
    assert allows(token(stored_key_access="full"), call)
    assert allows(token(), call, Gateway("main", stored_key_access="full"))
    assert allows(token(), call._replace(uses_stored_key=False))
    assert allows(token(endpoints={"v1"}), call) is False, "the version alone is not a prefix"
    assert allows(token(endpoints={call.endpoints[0].partition("?")[0]}), call)
