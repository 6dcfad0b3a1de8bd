"""Error bodies of every provider, and the usage of answers in one piece."""

import pytest

from bridge.formats.provider_errors import MAX_MESSAGE_CHARS, ProviderFault, fault_of
from bridge.formats.response import MAX_PARSED_BYTES
from bridge.formats.stream_reader import ParsedResponse, Usage, parse_response


def fault(status: int, body: str | bytes) -> ProviderFault:
    found = parse_response(status, body if isinstance(body, bytes) else body.encode()).fault
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("body", "message", "type_"),
    [
        pytest.param(
            '{"error":{"message":"Bad","type":"invalid_request_error"}}', "Bad", "invalid_request_error", id="openai"
        ),
        pytest.param('{"type":"error","error":{"type":"api_error","message":"Oh"}}', "Oh", "api_error", id="anthropic"),
        pytest.param(
            '[{"error":{"code":400,"message":"No","status":"INVALID_ARGUMENT"}}]', "No", "INVALID_ARGUMENT", id="google"
        ),
        pytest.param(
            '{"message":"Malformed input","__type":"com.amazon#ValidationException"}',
            "Malformed input",
            "ValidationException",
            id="aws",
        ),
        pytest.param('{"message":"invalid api token"}', "invalid api token", None, id="cohere"),
        pytest.param('{"Message":"Expired"}', "Expired", None, id="aws gateway"),
        pytest.param('{"detail":"Unauthenticated"}', "Unauthenticated", None, id="replicate"),
        pytest.param(
            '{"detail":[{"loc":["body"],"msg":"field required","type":"missing"}]}',
            "field required",
            None,
            id="fastapi",
        ),
        pytest.param('{"error":"Model is loading"}', "Model is loading", None, id="ollama"),
        pytest.param('{"error":"overloaded","error_type":"overloaded"}', "overloaded", "overloaded", id="tgi"),
        pytest.param(
            '{"error":"Bad Request","message":"model is required"}', "model is required", None, id="message beside"
        ),
        pytest.param(
            '{"success":false,"errors":[{"code":7003,"message":"No route"}],"messages":[]}',
            "No route",
            None,
            id="cloudflare",
        ),
        pytest.param(
            '{"success":false,"error":[{"code":2009,"message":"Unauthorized"}]}', "Unauthorized", None, id="gateway"
        ),
        pytest.param(
            '{"object":"error","message":{"detail":[{"msg":"extra"}]},"type":"invalid"}',
            "extra",
            "invalid",
            id="mistral",
        ),
        pytest.param("<html>\n<h1>502  Bad Gateway</h1>", "<html> <h1>502 Bad Gateway</h1>", None, id="html"),
        pytest.param("", "HTTP 418", None, id="empty"),
        pytest.param("null", "HTTP 418", None, id="null"),
        pytest.param("[]", "HTTP 418", None, id="empty array"),
        pytest.param('{"error":{}}', "HTTP 418", None, id="empty error"),
        pytest.param('{"error":{"type":"odd_error"}}', "odd_error", "odd_error", id="type alone"),
        pytest.param('{"error":{"code":[1],"message":5,"type":{}}}', "HTTP 418", None, id="odd types"),
        pytest.param(b"\xff\x00\xfe", "\ufffd\x00\ufffd", None, id="bytes"),
        pytest.param(r'{"error":"half \ud83d"}', "half ?", None, id="lone surrogate"),
    ],
)
def test_a_message_is_found_in_every_error_body(body: str | bytes, message: str, type_: str | None) -> None:
    found = fault(418, body)
    assert (found.status, found.message, found.type) == (418, message, type_)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"error":' * 800 + b"1" + b"}" * 800, b'{"error":"' + b"x" * 10_000]
)
def test_deep_and_long_bodies_are_read(body: bytes) -> None:
    assert len(fault(500, body).message) <= MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("status", "body", "exhausted", "refusal"),
    [
        (429, '{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}', True, False),
        (429, '{"error":{"code":"billing_hard_limit_reached"}}', True, False),
        (429, '{"error":{"code":"rate_limit_exceeded"}}', False, False),
        (403, '{"error":{"code":"insufficient_quota"}}', False, False),
        (400, '{"error":{"code":"content_filter"}}', False, True),
        (400, '{"error":{"code":"content_policy_violation"}}', False, True),
        (400, '{"error":{"code":"moderation_blocked"}}', False, True),
        (400, '{"error":{"code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}', False, True),
        (400, '{"error":{"code":"invalid_value","innererror":null}}', False, False),
        (403, '{"error":{"code":"content_filter"}}', False, False),
    ],
)
def test_exhausted_quota_and_refusals_are_detected_by_status_and_code(
    status: int, body: str, exhausted: bool, refusal: bool
) -> None:
    found = fault(status, body)
    assert (found.exhausted_quota, found.policy_refusal) == (exhausted, refusal)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "overloaded_error"}, 503),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, 429),
        ({"type": "invalid_request_error", "code": "model_not_found"}, 404),
        ({"type": "invalid_request_error", "code": None}, 400),
        ({"type": "authentication_error"}, 401),
        ({"type": "permission_error"}, 403),
        ({"type": "not_found_error"}, 404),
        ({"type": "api_error"}, 500),
        ({"type": "server_error"}, 500),
        ({"status": "RESOURCE_EXHAUSTED"}, 429),
        ({"status": "INVALID_ARGUMENT"}, 400),
        ({"status": "UNAVAILABLE", "code": 503}, 503),
        ({"type": "unheard_of"}, 500),
        ({"code": 429}, 429),
        ({"code": "502"}, 502),
        ({"code": 200}, 500),
        ({"code": 1 << 90}, 500),
        ({"code": True}, 500),
        ({"code": "tool_use_failed", "type": "invalid_request_error", "status_code": 422}, 422),
        ({}, 500),
        ("text", 500),
        (None, 500),
    ],
)
def test_the_type_of_an_error_in_a_stream_has_a_status(error: object, status: int) -> None:
    assert fault_of({"error": error}).status == fault_of(error).status == status


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("internalServerException", 500),
        ("modelStreamErrorException", 424),
        ("modelTimeoutException", 408),
        ("throttlingException", 429),
        ("validationException", 400),
        ("serviceUnavailableException", 503),
        ("ThrottlingException", 429),
    ],
)
def test_an_exception_of_bedrock_is_detected_by_its_name(name: str, status: int) -> None:
    assert fault_of({"message": "m"}, name=name) == ProviderFault(status, "m", name)


def test_exhausted_quota_is_detected_inside_a_stream() -> None:
    found = fault_of({"error": {"message": "m", "type": "insufficient_quota"}})
    assert found == ProviderFault(429, "m", "insufficient_quota", exhausted_quota=True)


@pytest.mark.parametrize(
    ("body", "usage", "cost"),
    [
        pytest.param(
            '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"cost":0.5}}',
            Usage(1, 2, None, 3),
            0.5,
            id="openai",
        ),
        pytest.param('\n\n {"usage":{"prompt_tokens":1}}', Usage(1), None, id="blank lines first"),
        pytest.param(
            '{"usage":{"input_tokens":1,"cache_read_input_tokens":5,"output_tokens":2}}',
            Usage(6, 2, 5, 8),
            None,
            id="anthropic",
        ),
        pytest.param(
            '{"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3}}',
            Usage(1, 2, None, 3),
            None,
            id="gemini",
        ),
        pytest.param(
            '{"meta":{"billed_units":{"input_tokens":1},"tokens":{"input_tokens":3,"output_tokens":4}}}',
            Usage(3, 4, None, 7),
            None,
            id="cohere v1",
        ),
        pytest.param(
            '{"usage":{"tokens":{"input_tokens":3,"output_tokens":4},"billed_units":{"input_tokens":1}}}',
            Usage(3, 4, None, 7),
            None,
            id="cohere v2",
        ),
        pytest.param(
            '{"result":{"response":"a","usage":{"prompt_tokens":1,"completion_tokens":2}},"success":true}',
            Usage(1, 2, None, 3),
            None,
            id="workers ai",
        ),
        pytest.param(
            '{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"stopReason":"end_turn"}',
            Usage(1, 2, None, 3),
            None,
            id="converse",
        ),
        pytest.param(
            '{"model":"llama3","done":true,"prompt_eval_count":1,"eval_count":2}',
            Usage(1, 2, None, 3),
            None,
            id="ollama",
        ),
        pytest.param(
            '{"generation":"a","prompt_token_count":1,"generation_token_count":2}',
            Usage(1, 2, None, 3),
            None,
            id="llama",
        ),
        pytest.param(
            '{"metrics":{"input_token_count":1,"output_token_count":2}}', Usage(1, 2, None, 3), None, id="replicate"
        ),
        pytest.param('{"error":{"message":"in a 200"}}', None, None, id="an error with status 200 is the answer"),
        pytest.param('{"usage":"none","result":[1],"meta":null}', None, None, id="other types"),
        pytest.param('{"usage":{"prompt_tokens":1}', None, None, id="cut"),
        pytest.param("[1]", None, None, id="array"),
        pytest.param("ID3", None, None, id="no JSON"),
        pytest.param("", None, None, id="empty"),
    ],
)
def test_a_successful_answer_has_counts_and_no_fault(body: str, usage: Usage | None, cost: float | None) -> None:
    assert parse_response(200, body.encode()) == ParsedResponse(None, usage, {} if cost is None else {"cost": cost})


def test_a_very_long_error_is_read_by_its_status_and_beginning() -> None:
    body = b'{"error":{"message":"busy"},"pad":"%s"}'
    room = MAX_PARSED_BYTES - len(body % b"")
    fault = parse_response(503, body % (b"x" * room)).fault
    assert fault is not None
    assert fault.message == "busy"
    fault = parse_response(503, body % (b"x" * (room + 1))).fault
    assert fault is not None
    assert fault.status == 503
    assert fault.message.startswith('{"error":{"message":"busy"}')
