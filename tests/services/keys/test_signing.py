"""Stored keys, from a client's socket to the bytes that a provider reads."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bridge.config import load
from bridge.tapes.recorder import recording_transport
from bridge.upstream.transport import HttpTransport
from tests.support.harness import Client, Frame, connected, running
from tests.support.socket_provider import OK, Line, Provider

SECRET, SPARE = "stored-key-1234567890", "spare-key-0987654321"
AWS = {"ID": "AKIDEXAMPLE0123456789", "AWS_SECRET": "aws-secret-1234567890", "SESSION": "session-token-1234567890"}
ENVIRON = {"TOKEN": "one", "KEY": SECRET, "SPARE": SPARE, **AWS}


class Requests:
    """A provider that answers each request with `ok`, and keeps what it read."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, line: Line) -> None:
        while True:
            head = await line.head()
            self.heads.append(head)
            self.bodies.append(await line.body(head))
            await line.send(OK)

    def headers(self) -> dict[str, str]:
        """Of the last request; names in lower case."""
        _, *lines = self.heads[-1].decode().strip().split("\r\n")
        return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


@asynccontextmanager
async def talking(
    folder: Path, slug: str, keys: str, *, base: str = "", record: Path | None = None
) -> AsyncIterator[tuple[Client, Requests]]:
    """To a gateway whose provider `slug` is a raw socket of this machine, and has these keys."""
    requests = Requests()
    async with Provider(requests) as provider:
        path = folder / "bridge.toml"
        path.write_text(
            f'[providers.{slug}]\nbase_url = "http://127.0.0.1:{provider.port}{base}"\n'
            f'[gateways.prod]\nstored_key_access = "full"\n'
            f'[gateways.prod.tokens]\nci = "env:TOKEN"\n[gateways.prod.keys.{slug}]\n{keys}'
        )
        config = load(path, ENVIRON, {"port": 0})
        transport = recording_transport(HttpTransport(), record) if record else None
        async with (
            running(config, transport) as server,
            connected(server, "/v1/account/prod", headers={"cf-aig-authorization": "one"}) as client,
        ):
            yield client, requests


async def called(client: Client, slug: str, endpoint: str = "v1/x", **more: object) -> Frame:
    step = {"provider": slug, "endpoint": endpoint, "query": {"model": "m"}, **more}
    return (await client.call({"eventId": "a", **step}))[-1]


# As a header.


@pytest.mark.parametrize(
    ("slug", "header", "value"),
    [
        ("openai", "authorization", f"Bearer {SECRET}"),
        ("anthropic", "x-api-key", SECRET),
        ("google-ai-studio", "x-goog-api-key", SECRET),
        ("google-vertex-ai", "authorization", f"Bearer {SECRET}"),
        ("azure-openai", "api-key", SECRET),
        ("elevenlabs", "xi-api-key", SECRET),
        ("deepgram", "authorization", f"Token {SECRET}"),
        ("fal", "authorization", f"Key {SECRET}"),
        ("aws-bedrock", "authorization", f"Bearer {SECRET}"),
    ],
)
async def test_each_provider_gets_the_key_in_its_own_header(tmp_path: Path, slug: str, header: str, value: str) -> None:
    async with talking(tmp_path, slug, 'default = "env:KEY"') as (client, requests):
        assert (await called(client, slug))["metadata"]["success"] is True
        assert requests.headers()[header] == value
        assert str(requests.heads).count(SECRET) == 1


async def test_bedrock_mantle_gets_the_key_in_anthropics_header(tmp_path: Path) -> None:
    async with talking(tmp_path, "aws-bedrock", 'default = "env:KEY"', base="/{region}") as (client, requests):
        await called(client, "aws-bedrock", "bedrock-mantle/us-east-1/anthropic/v1/messages")
        assert requests.headers()["x-api-key"] == SECRET
        assert "authorization" not in requests.headers()


@pytest.mark.parametrize(
    "how", [{"headers": {"cf-aig-byok-alias": "spare"}}, {"config": {"byokAlias": "spare"}}], ids=["header", "config"]
)
async def test_a_request_chooses_the_alias(tmp_path: Path, how: dict[str, object]) -> None:
    async with talking(tmp_path, "openai", 'default = "env:KEY"\nspare = "env:SPARE"') as (client, requests):
        await called(client, "openai", **how)
        assert requests.headers()["authorization"] == f"Bearer {SPARE}"
        assert "cf-aig-byok-alias" not in requests.headers()


async def test_an_unknown_alias_is_2040_without_a_provider_call(tmp_path: Path) -> None:
    async with talking(tmp_path, "openai", 'default = "env:KEY"\nspare = "env:SPARE"') as (client, requests):
        last = await called(client, "openai", headers={"cf-aig-byok-alias": "nobody"})
        assert (last["error"]["code"], last["metadata"]["status"]) == (2040, 400)
        assert last["error"]["message"] == (
            "Provider 'openai' has no BYOK credential named 'nobody'. Configured aliases: default, spare"
        )
        assert requests.heads == []


async def test_a_request_with_its_own_credential_is_unchanged(tmp_path: Path) -> None:
    async with talking(tmp_path, "openai", 'default = "env:KEY"') as (client, requests):
        await called(client, "openai", headers={"Authorization": "Bearer mine"})
        assert requests.headers()["authorization"] == "Bearer mine"


# As a signature.

AWS_KEY = 'default = { access_key_id = "env:ID", secret_access_key = "env:AWS_SECRET"'


def botocore_s(requests: Requests, service: str, region: str, port: int) -> str:
    """The Authorization that botocore makes for what the provider read, at the time that it names."""
    head, body, got = requests.heads[-1].decode(), requests.bodies[-1], requests.headers()
    method, target, _ = head.partition("\r\n")[0].split(" ")
    signed = got["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(
        method, f"http://127.0.0.1:{port}{target}", headers={name: got[name] for name in signed}, data=body
    )
    request.context["timestamp"] = got["x-amz-date"]
    auth = SigV4Auth(Credentials(AWS["ID"], AWS["AWS_SECRET"]), service, region)
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={';'.join(signed)}, Signature={signature}"


@pytest.mark.parametrize(
    ("endpoint", "service", "region"),
    [
        ("bedrock-runtime/eu-west-1/model/us.anthropic.claude-v1:0/invoke", "bedrock", "eu-west-1"),
        ("bedrock-runtime/us-east-1/model/arn%3Aaws%3Abedrock%2Fx%3A0/invoke?b=2&a=%20x", "bedrock", "us-east-1"),
        ("bedrock-mantle/us-west-2/anthropic/v1/messages", "bedrock-mantle", "us-west-2"),
    ],
)
async def test_an_aws_key_signs_the_sent_path_query_and_body(
    tmp_path: Path, endpoint: str, service: str, region: str
) -> None:
    async with talking(tmp_path, "aws-bedrock", AWS_KEY + "}", base="/{region}") as (client, requests):
        own = {"content-type": "application/json", "x-amz-user": "me", "x-amz-date": "mine", "user-agent": "sdk"}
        last = await called(client, "aws-bedrock", endpoint, headers=own)
        assert last["metadata"]["success"] is True, last
        got = requests.headers()
        signed = got["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
        assert signed == "content-type;host;x-amz-date;x-amz-user"
        assert requests.heads[-1].lower().count(b"x-amz-date:") == 1
        assert f"/{region}/{service}/aws4_request" in got["authorization"]
        port = int(got["host"].partition(":")[2])
        assert got["authorization"] == botocore_s(requests, service, region, port)
        signed_at = datetime.strptime(got["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert abs((datetime.now(UTC) - signed_at).total_seconds()) < 60
        assert requests.bodies == [b'{"model":"m"}']


async def test_a_session_token_is_sent_and_signed_and_a_moved_provider_uses_the_keys_region(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = AWS_KEY + ', session_token = "env:SESSION", region = "eu-north-1" }'
    async with talking(tmp_path, "aws-bedrock", key) as (client, requests):
        await called(client, "aws-bedrock", "model/m/invoke")
        got = requests.headers()
        assert got["x-amz-security-token"] == AWS["SESSION"]
        assert "x-amz-date;x-amz-security-token," in got["authorization"]
        assert "/eu-north-1/bedrock/aws4_request" in got["authorization"]
    assert AWS["SESSION"] not in str([vars(record) for record in caplog.records])


async def test_a_long_body_is_signed_like_any_other(tmp_path: Path) -> None:
    async with talking(tmp_path, "aws-bedrock", AWS_KEY + "}", base="/{region}") as (client, requests):
        query = {"prompt": "x" * (1 << 20)}
        await called(client, "aws-bedrock", "bedrock-runtime/eu-west-1/model/m/invoke", query=query)
        port = int(requests.headers()["host"].partition(":")[2])
        assert requests.headers()["authorization"] == botocore_s(requests, "bedrock", "eu-west-1", port)


# Nowhere else.


@pytest.mark.parametrize(
    ("slug", "keys"),
    [
        ("openai", 'default = "env:KEY"'),
        ("anthropic", 'default = "env:KEY"'),
        ("aws-bedrock", AWS_KEY + ', session_token = "env:SESSION" }'),
    ],
)
async def test_tapes_frames_and_log_lines_contain_nothing_of_a_stored_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, slug: str, keys: str
) -> None:
    caplog.set_level(logging.DEBUG)
    async with talking(tmp_path, slug, keys, record=tmp_path / "tapes") as (client, requests):
        await called(client, slug)
        sent = str(requests.heads)
        frames = json.dumps(client.frames)
    [tape] = [path for path in (tmp_path / "tapes").rglob("*") if path.is_file()]
    written = tape.read_text()
    assert "[redacted]" in written
    logged = str([vars(record) for record in caplog.records])
    for secret in (SECRET, *AWS.values()):
        assert secret not in written + frames + logged
    assert SECRET in sent or AWS["ID"] in sent
