"""The calls that a token may make, and what a stored key is used for."""

import pytest

from bridge.config.gateways import Gateway, Token
from bridge.errors import NotAllowed
from bridge.policy.scopes import Wanted, check_call
from bridge.providers.model_endpoints import is_model_endpoint, is_model_socket

CHAT = ("v1/chat/completions",)
FILES = ("v1/files",)


def token(**scopes: object) -> Token:
    return Token("ci", b"", **scopes)  # type: ignore[arg-type]  # what the test says


def wanted(
    endpoints: tuple[str, ...] = CHAT,
    method: str = "POST",
    model: str | None = "gpt-4o-mini",
    *,
    socket: bool = False,
    stored: bool = False,
    provider: str = "openai",
) -> Wanted:
    calls_model = is_model_socket(endpoints[0]) if socket else is_model_endpoint(method, endpoints[0])
    return Wanted(provider, method, endpoints, model, calls_model, socket, stored)


def allows(token: Token, wanted: Wanted, gateway: Gateway = Gateway("main")) -> bool:  # noqa: B008 - it is frozen
    try:
        check_call(token, gateway, wanted)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("scopes", "call", "allowed"),
    [
        ({}, wanted(FILES, "DELETE", None), True),
        ({"methods": {"POST"}}, wanted(), True),
        ({"methods": {"POST"}}, wanted(method="DELETE"), False),
        ({"methods": {"POST"}}, wanted(("v1/realtime",), "GET", socket=True), False),
        ({"models": {"gpt-4o-mini"}}, wanted(), True),
        ({"models": {"gpt-4o"}}, wanted(), False),
        ({"models": {"gpt-4o*"}}, wanted(), True),
        ({"models": {"claude-*", "gpt-4o-mini"}}, wanted(), True),
        ({"models": {"gpt-4o-mini"}}, wanted(model=None), False),
        ({"models": {"gpt-4o-mini"}}, wanted(FILES, model=None), False),
        ({"models": {"gpt-4o-mini"}}, wanted(("v1/models",), "GET", None), True),
        ({"models": {"gpt-4o-mini"}}, wanted(("v1/models",), "GET", None, socket=True), False),
        ({"endpoints": {"v1/chat"}}, wanted(), True),
        ({"endpoints": {"chat/completions"}}, wanted(), True),
        ({"endpoints": {"v1/chat/completions"}}, wanted(("/chat/completions?x=1",)), True),
        ({"endpoints": {"v1/cha"}}, wanted(), False),
        ({"endpoints": {"chat/completions"}}, wanted(("chat/completions-of-others",)), False),
        ({"endpoints": {"chat/completions"}}, wanted(("v1/files?x=/chat/completions",)), False),
        ({"endpoints": {"chat"}}, wanted(("chat%2F..%2Ffiles",)), False),
        ({"endpoints": {"chat/completions"}}, wanted(("resource/gpt/chat/completions", "chat/completions")), True),
        ({"endpoints": {"v1/files"}, "methods": {"GET"}}, wanted(FILES, "GET", None), True),
        ({"endpoints": {"v1/files"}, "methods": {"GET"}}, wanted(FILES, "POST", None), False),
    ],
)
def test_a_call_has_to_be_within_every_scope_that_the_token_has(
    scopes: dict[str, frozenset[str]], call: Wanted, allowed: bool
) -> None:
    assert allows(token(**scopes), call) is allowed


STORED = [
    pytest.param(wanted(stored=True), True, id="a model endpoint"),
    pytest.param(wanted(("v1/models",), "GET", None, stored=True), True, id="the list of models"),
    pytest.param(wanted(("v1/models/gpt",), "DELETE", None, stored=True), False, id="deletes a model"),
    pytest.param(wanted(CHAT, "GET", stored=True), False, id="lists stored completions"),
    pytest.param(wanted(FILES, stored=True), False, id="uploads a file"),
    pytest.param(wanted(("v1/files/f/content",), "GET", None, stored=True), False, id="reads a file"),
    pytest.param(wanted(("v1/responses/r",), "GET", None, stored=True), False, id="reads a stored response"),
    pytest.param(wanted(("v1/batches",), "GET", None, stored=True), False, id="lists batches"),
    pytest.param(wanted(("v1/organization/admin_api_keys",), stored=True), False, id="makes a key"),
    pytest.param(wanted(("v1/realtime?model=m",), "GET", socket=True, stored=True), True, id="talks to a model"),
    pytest.param(wanted(("v1/realtime?call_id=c",), "GET", socket=True, stored=True), False, id="joins a call"),
    pytest.param(wanted(("v1/files",), "GET", socket=True, stored=True), False, id="reads files by a handshake"),
    pytest.param(wanted(("v1/models",), "GET", socket=True, stored=True), False, id="no socket"),
    pytest.param(wanted(CHAT, "GET", socket=True, stored=True), False, id="lists completions by a handshake"),
]


@pytest.mark.parametrize(("call", "allowed"), STORED)
def test_a_stored_key_makes_models_answer_and_nothing_else(call: Wanted, allowed: bool) -> None:
    assert allows(token(), call) is allowed
    assert allows(token(methods={"GET", "POST", "DELETE"}), call) is allowed
    assert allows(token(stored_key_access="models"), call, Gateway("main", stored_key_access="full")) is allowed


@pytest.mark.parametrize(("call", "allowed"), STORED)
def test_the_configuration_may_give_more(call: Wanted, allowed: bool) -> None:
    assert allows(token(stored_key_access="full"), call)
    assert allows(token(), call, Gateway("main", stored_key_access="full"))
    assert allows(token(), call._replace(uses_stored_key=False))
    assert allows(token(endpoints={"v1"}), call) is False, "the version alone is no beginning"
    assert allows(token(endpoints={call.endpoints[0].partition("?")[0]}), call)
