"""Steps of a request: unchanged bodies, precedence of headers and settings, errors that name their field."""

import json

import pytest

from bridge.errors import BadField, TooLarge
from bridge.protocol.messages import MessageLimits
from bridge.settings.step import StepSettings
from tests.support.messages import created, fault, step

# Requests to the provider.


@pytest.mark.parametrize(
    "query",
    [
        '{"prompt":"tell me a joke"}',
        '{ "b" : 1 ,\n\t"a":2 }',
        '{"a":1,"a":2}',
        "{}",
        "[]",
        '["x"]',
        '"text"',
        '"[DONE]"',
        "5",
        "-0",
        "true",
        "false",
        "null",
        '{"seed":123456789012345678901234567890}',
        '{"n":1e400,"m":-1E-400,"k":1.0,"i":1.10}',
        r'{"a":"\u0061\/\b\n\"\\"}',
        r'{"half":"\ud83d"}',
        r'{"other half":"\uDE00","both":"\ud83d\ude00","escaped":"\\ud83d"}',
        r'["\ud83d\ud83d\ude00\ude00"]',
        r'{"\ud83d":"\ufffd"}',
        '{"emoji":"😀","line":"\u2028","é":"e\u0301"}',
        '{"nul":"\\u0000"}',
        '{"model":"x","nested":{"type":"universal.cancel","eventId":7}}',
    ],
)
def test_a_query_reaches_the_provider_as_the_very_bytes_the_client_wrote(query: str) -> None:
    assert step(f'"query": {query} ').body == query.encode()


def test_equal_steps_have_separate_queries() -> None:
    queries = [r'"\ufffd"', r'"\ud83d"', r'"\uDE00"', r'"\ud83d"', '""', r'"\ud83d\ude00"']
    steps = ",".join(rf'{{"query":{query},"provider":"x","endpoint":"\ud83d"}}' for query in queries)
    assert [each.body.decode() for each in created(f"[{steps}]", eventId=r'"\ud83d"').steps] == queries


@pytest.mark.parametrize(
    ("members", "body"),
    [
        ('"body":"plain é 😀"', "plain é 😀".encode()),
        ('"body":"plain","encoding":"text"', b"plain"),
        ('"body":"plain","encoding":null', b"plain"),
        (r'"body":"a\nb\u0000\"\ud83d\ude00"', 'a\nb\0"😀'.encode()),
        ('"body":""', b""),
        ('"body":"AAECAw==","encoding":"base64"', b"\0\1\2\3"),
        ('"body":"","encoding":"base64"', b""),
        ('"body":"text","query":null', b"text"),
        ('"body":null,"query":{}', b"{}"),
        ('"encoding":"base64"', b""),
        ('"method":"GET"', b""),
    ],
)
def test_a_body_may_replace_the_query(members: str, body: bytes) -> None:
    assert step(members).body == body


def test_half_an_emoji_in_a_text_body_is_sent_as_browsers_send_it() -> None:
    assert step(r'"body":"a\ud83d, \\ud83d, \ud83d\ude00","x":"\ude00"').body == r"a�, \ud83d, 😀".encode()


@pytest.mark.parametrize(
    ("members", "content_type"),
    [
        ('"query":{}', "application/json"),
        ('"query":5', "application/json"),
        ('"query":{},"headers":{"Content-Type":"application/x-ndjson"}', "application/x-ndjson"),
        ('"query":{},"body":null', "application/json"),
        ('"body":"{}"', None),
        ('"body":"{}","query":null', None),
        ('"body":"x","headers":{"content-type":"text/plain"}', "text/plain"),
        ('"method":"GET"', None),
    ],
)
def test_a_query_is_json_unless_its_content_type_says_otherwise(members: str, content_type: str | None) -> None:
    assert step(members).provider_headers.get("content-type") == content_type


@pytest.mark.parametrize(
    ("members", "method"),
    [
        ('"endpoint":"x"', "POST"),
        ('"method":null', "POST"),
        ('"method":"GET"', "GET"),
        ('"method":"delete"', "DELETE"),
        ('"method":"Patch"', "PATCH"),
    ],
)
def test_a_step_is_a_post_unless_it_says_otherwise(members: str, method: str) -> None:
    assert step(members).method == method


def test_unknown_fields_are_ignored_everywhere() -> None:
    request = """{
        "provider":"unread: a chain has none", "stream":true, "model":null, "deep":[{"x":1e400}],
        "config":{"unknown":[1e400],"cacheTtl":60,"maxAttempts":2},
        "steps":[{"provider":"x","endpoint":"","Endpoint":"x","event_id":1,"unknown":{},"steps":[{"provider":"y","endpoint":""}]}]
    }"""
    [only] = created(request, unknown="[[]]", stream="1e999").steps
    assert (only.provider, only.endpoint, only.settings.max_attempts) == ("x", "", 2)


# Headers.


def test_header_names_ignore_case_and_the_later_one_is_used() -> None:
    assert step('"headers":{"X-A":"1","x-b":"2","x-a":"3"}').headers == {"x-a": "3", "x-b": "2"}


def test_a_number_is_a_header_s_value_as_the_client_wrote_it() -> None:
    written = ["1", "1.0", "1.10", "-0", "1e400", "123456789012345678901234567890"]
    members = ",".join(f'"x-{index}":{value}' for index, value in enumerate(written))
    assert list(step(f'"headers":{{"x":"a",{members}}}').headers.values()) == ["a", *written]


@pytest.mark.parametrize(
    ("members", "sent"),
    [
        ('"authorization":"Bearer bare"', "Bearer bare"),
        ('"authorization":"Bearer bare","headers":{"Authorization":"Bearer header"}', "Bearer bare"),
        ('"authorization":null,"headers":{"Authorization":"Bearer header"}', "Bearer header"),
    ],
)
def test_a_bare_authorization_is_the_authorization_header(members: str, sent: str) -> None:
    assert step(members).provider_headers["authorization"] == sent


def test_settings_and_the_token_of_the_gateway_are_not_forwarded() -> None:
    members = '"headers":{"cf-aig-authorization":"Bearer t","CF-AIG-Max-Attempts":"2","cf-aig-metadata":"{}","x":"y"}'
    assert step(members).provider_headers == {"x": "y"}


# Chains.


def test_a_chain_s_headers_are_defaults_for_its_steps() -> None:
    first, second, third = created("""{
        "headers":{"X-A":"chain","x-b":"chain"}, "authorization":"Bearer chain",
        "steps":[
            {"provider":"x","endpoint":""},
            {"provider":"x","endpoint":"","headers":{"x-a":"step","Authorization":"Bearer step"}},
            {"provider":"x","endpoint":"","authorization":"Bearer bare"}
        ]}""").steps
    assert first.headers == {"x-a": "chain", "x-b": "chain", "authorization": "Bearer chain"}
    assert second.headers == {"x-a": "step", "x-b": "chain", "authorization": "Bearer step"}
    assert third.headers == {"x-a": "chain", "x-b": "chain", "authorization": "Bearer bare"}


GATEWAY = StepSettings(request_timeout=1, max_attempts=1, retry_delay=1, backoff="constant")


@pytest.mark.parametrize(
    ("chain", "members", "attempts"),
    [
        ("", "", 1),
        ("", '"headers":{"cf-aig-max-attempts":2}', 2),
        ("", '"config":{"maxAttempts":3}', 3),
        ("", '"headers":{"cf-aig-max-attempts":"2"},"config":{"maxAttempts":3}', 3),
        ("", '"headers":{"cf-aig-max-attempts":"2"},"config":{"maxAttempts":null}', 2),
        ('"headers":{"cf-aig-max-attempts":"4"},', "", 4),
        ('"headers":{"cf-aig-max-attempts":"4"},"config":{"maxAttempts":5},', "", 5),
        ('"config":{"maxAttempts":5},', '"headers":{"cf-aig-max-attempts":"2"}', 2),
        ('"config":{"maxAttempts":5},', '"config":{"maxAttempts":3}', 3),
        ('"config":{"maxAttempts":5},', '"config":{"backoff":"linear"}', 5),
    ],
)
def test_a_step_overrides_its_chain_and_a_config_overrides_headers(chain: str, members: str, attempts: int) -> None:
    inner = ",".join(filter(None, ['"provider":"x","endpoint":""', members]))
    [only] = created(f'{{{chain}"steps":[{{{inner}}}]}}', GATEWAY).steps
    assert only.settings.max_attempts == attempts
    assert only.settings.retry_delay == 1
    if not chain:
        assert created(f"{{{inner}}}", GATEWAY).steps == created(f"[{{{inner}}}]", GATEWAY).steps == [only]


def test_unchanged_settings_are_those_of_the_gateway() -> None:
    assert step('"query":{}', GATEWAY).settings is GATEWAY


def test_a_setting_out_of_range_is_clamped_and_a_warning_names_it() -> None:
    message = created("""{"headers":{"cf-aig-retry-delay":"9000"},
        "steps":[{"provider":"x","endpoint":"","config":{"maxAttempts":9}},{"provider":"x","endpoint":"","config":{"maxAttempts":0}}]}""")
    assert [each.settings.max_attempts for each in message.steps] == [5, 1]
    assert [each.settings.retry_delay for each in message.steps] == [5000, 5000]
    assert [warning.partition(":")[0] for warning in message.warnings] == [
        "request.headers.cf-aig-retry-delay",
        "request.steps[0].config.maxAttempts",
        "request.steps[1].config.maxAttempts",
    ]


# Errors.


@pytest.mark.parametrize(
    ("request_", "beginning"),
    [
        ("null", "request: missing"),
        ('"text"', "request: expected an object or a list of steps, got a string"),
        ("5", "request: expected an object or a list of steps, got a number"),
        ("true", "request: expected an object or a list of steps, got a boolean"),
        ("[]", "request: the list of steps is empty"),
        ('{"steps":[]}', "request.steps: the list of steps is empty"),
        ('{"steps":{}}', "request.steps: expected a list of steps, got an object"),
        ('{"steps":"x"}', "request.steps: expected a list of steps, got a string"),
        ("[5]", "request[0]: expected an object"),
        ('[{"provider":"x","endpoint":""},null]', "request[1]: expected an object"),
        ('[{"provider":"x","endpoint":""},[]]', "request[1]: expected an object"),
        ('{"steps":[{"provider":"x","endpoint":""},7]}', "request.steps[1]: expected an object"),
        ("{}", "request.provider: missing"),
        ('{"provider":null}', "request.provider: missing"),
        ('{"provider":7}', "request.provider: expected a string, got a number"),
        ('{"provider":["x"]}', "request.provider: expected a string, got a list"),
        ('[{"provider":"x","endpoint":""},{"provider":{}}]', "request[1].provider: expected a string, got an object"),
        ('{"steps":[{"provider":true}]}', "request.steps[0].provider: expected a string, got a boolean"),
        ('{"provider":"x","endpoint":5}', "request.endpoint: expected a string, got a number"),
        (
            '{"provider":"x","endpoint":"","authorization":{}}',
            "request.authorization: expected a string, got an object",
        ),
        (
            '{"provider":"x","endpoint":"","authorization":"a\\nb"}',
            "request.authorization: a header value",
        ),
        ('{"provider":"x","endpoint":"","headers":[]}', "request.headers: expected an object, got a list"),
        ('{"provider":"x","endpoint":"","headers":"a: b"}', "request.headers: expected an object, got a string"),
        (
            '[{"provider":"x","endpoint":""},{"provider":"x","endpoint":"","headers":{"x-y":true}}]',
            "request[1].headers.x-y: expected a string or a number, got a boolean",
        ),
        (
            '{"provider":"x","endpoint":"","headers":{"a":1,"b":null}}',
            "request.headers.b: expected a string or a number, got null",
        ),
        (
            '{"provider":"x","endpoint":"","headers":{"a":["b"]}}',
            "request.headers.a: expected a string or a number, got a list",
        ),
        (
            '{"steps":[{"provider":"x","endpoint":""}],"headers":{"a":{}}}',
            "request.headers.a: expected a string or a number, got an object",
        ),
        ('{"provider":"x","endpoint":"","config":7}', "request.config: expected an object, got a number"),
        ('{"steps":[{"provider":"x","endpoint":""}],"config":[]}', "request.config: expected an object, got a list"),
        (
            '{"provider":"x","endpoint":"","config":{"maxAttempts":1e400}}',
            "request.config.maxAttempts: number out of range",
        ),
        ('{"provider":"x","endpoint":"","method":5}', "request.method: expected a string, got a number"),
        ('{"provider":"x","endpoint":"","body":{}}', "request.body: expected a string, got an object"),
        ('{"provider":"x","endpoint":"","body":"a","encoding":1}', "request.encoding: expected a string, got a number"),
        (
            '{"provider":"x","endpoint":"","body":"a","encoding":"hex"}',
            "request.encoding: expected text or base64, got 'hex'",
        ),
        ('{"provider":"x","endpoint":"","body":"a","query":{}}', "request: has both query and body"),
    ],
)
def test_an_error_names_the_invalid_field(request_: str, beginning: str) -> None:
    error = fault(request_)
    assert isinstance(error, BadField)
    assert str(error).startswith(beginning)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ('"config":{"maxAttempts":"3"}', "request.config.maxAttempts"),
        ('"config":{"maxAttempts":1.5}', "request.config.maxAttempts"),
        ('"config":{"maxAttempts":true}', "request.config.maxAttempts"),
        ('"config":{"backoff":"never"}', "request.config.backoff"),
        ('"config":{"backoff":[]}', "request.config.backoff"),
        ('"config":{"onBreak":{}}', "request.config.onBreak"),
        ('"headers":{"cf-aig-max-attempts":"many"}', "request.headers.cf-aig-max-attempts"),
        ('"headers":{"cf-aig-backoff":7}', "request.headers.cf-aig-backoff"),
        ('"method":""', "request.method"),
        ('"method":"GET /"', "request.method"),
        ('"method":"CONNECT"', "request.method"),
        ('"method":"trace"', "request.method"),
        ('"method":"PÖST"', "request.method"),
        ('"body":"A","encoding":"base64"', "request.body"),
        ('"body":"AA=","encoding":"base64"', "request.body"),
        ('"body":"é===","encoding":"base64"', "request.body"),
        ('"body":"AAEC Aw==","encoding":"base64"', "request.body"),
    ],
)
def test_an_error_names_the_field_of_an_invalid_value(members: str, field: str) -> None:
    error = fault(f'{{"provider":"x","endpoint":"",{members}}}')
    assert isinstance(error, BadField)
    assert str(error).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ('{"provider":"x","endpoint":"","headers":%s}', "request.headers"),
        ('[{"provider":"x","endpoint":""},{"provider":"x","endpoint":"","headers":%s}]', "request[1].headers"),
        ('{"headers":%s,"steps":[{"provider":"x","endpoint":""}]}', "request.steps[0].headers"),
        ('{"headers":{"lent":"x"},"steps":[{"provider":"x","endpoint":"","headers":%s}]}', "request.steps[0].headers"),
    ],
)
def test_the_limit_of_headers_includes_those_of_the_chain(written: str, where: str) -> None:
    own = 99 if "lent" in written else 100
    members = [f'"x-{index}":""' for index in range(own + 1)]
    created(written % f"{{{','.join(members[:own])}}}")
    error = fault(written % f"{{{','.join(members)}}}")
    assert isinstance(error, TooLarge)
    assert str(error).startswith(f"{where}: 101 headers")


@pytest.mark.parametrize("character", ["a", "é", "😀", r"\u00e9", r"\ud83d\ude00"])
def test_headers_are_measured_in_bytes_of_utf_8(character: str) -> None:
    limits = MessageLimits(max_header_bytes=40)
    size = len(character.encode()) if "\\" not in character else {6: 2, 12: 4}[len(character)]
    written = '{"provider":"x","endpoint":"","headers":{"a":"%s"}}'
    created(written % (character * (39 // size)), limits=limits)
    error = fault(written % (character * (39 // size + 1)), limits)
    assert isinstance(error, TooLarge)
    assert str(error).startswith("request.headers: ")


def test_headers_far_over_the_limit_are_not_parsed() -> None:
    members = ",".join(['"a":1'] * 50_000)
    error = fault(f'{{"provider":"x","endpoint":"","headers":{{{members}}}}}')
    assert isinstance(error, TooLarge)
    assert str(error).startswith("request.headers: 300001 bytes")


# Unknown names.


def test_an_unknown_member_of_a_config_is_ignored_with_a_warning_that_names_the_nearest() -> None:
    message = created(
        '{"provider":"openai","endpoint":"","config":{"maxAttempt":3,"request_timeout":1,"Frames":"raw"}}'
    )
    assert message.steps[0].settings == StepSettings()
    assert message.warnings == [
        "request.config.maxAttempt: unknown, and ignored; did you mean maxAttempts?",
        "request.config.request_timeout: unknown, and ignored; did you mean requestTimeout?",
        "request.config.Frames: unknown, and ignored; did you mean frames?",
    ]


def test_a_warning_names_only_a_few_unknown_members() -> None:
    config = {f"x{each}": 1 for each in range(100)}
    warnings = created(json.dumps([{"provider": "x", "endpoint": "", "config": config}] * 3)).warnings
    assert len(warnings) == 8 + 3
    assert warnings[8:] == [
        "request[0].config: 92 more unknown names are ignored.",
        "request[1].config: 100 more unknown names are ignored.",
        "request[2].config: 100 more unknown names are ignored.",
    ]


def test_a_warning_repeats_no_control_characters() -> None:
    [warning] = created('{"provider":"x","endpoint":"","config":{"\\u001b[2J\\u202e":1}}').warnings
    assert warning == "request.config.?[2J?: unknown, and ignored."


@pytest.mark.parametrize("endpoint", ["", '"endpoint":null,'])
def test_a_step_names_its_endpoint(endpoint: str) -> None:
    error = fault(f'{{"provider":"openai",{endpoint}"query":{{}}}}')
    assert (error.code, str(error).partition(":")[0]) == (9003, "request.endpoint")


def test_an_empty_endpoint_is_the_base_url_itself() -> None:
    assert step('"query":{}').endpoint == ""
