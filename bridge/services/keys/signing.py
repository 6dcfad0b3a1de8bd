"""Add a stored key to a provider call: as a header, as a signature, or as an OAuth token."""

from dataclasses import replace
from typing import Final

from bridge.config.keys import AwsKey, GoogleAccount
from bridge.policy.key_selection import credential_headers
from bridge.relay.plan import PlannedStep
from bridge.services.keys.google_oauth import GoogleTokens
from bridge.services.keys.sigv4 import CredentialScope, Headers, sign
from bridge.upstream.http import Call

MANTLE: Final = "bedrock-mantle"
_BEDROCK_ENDPOINTS: Final = {"bedrock-runtime": "bedrock", MANTLE: MANTLE}
"""The service name of a signature, by the first segment of an endpoint."""


class StoredKeys:
    """Implement `relay.interfaces.Keys` for static keys, AWS and Google."""

    def __init__(self, tokens: GoogleTokens) -> None:
        self._tokens = tokens

    async def authorize(self, call: Call, planned: PlannedStep) -> Call:
        """Replace the credentials of a call by the stored key. Raises KeyUnusable."""
        dropped = credential_headers(planned.provider)
        headers = [(name, value) for name, value in call.headers if name not in dropped]
        return replace(call, headers=await self._with_key(call, headers, planned))

    async def _with_key(self, call: Call, headers: Headers, planned: PlannedStep) -> Headers:
        key = planned.key
        assert key is not None
        match key.secret:
            case str(secret):
                return [*headers, _header(secret, planned)]
            case AwsKey() as aws:
                return await sign(call, headers, aws, _scope(planned, aws))
            case GoogleAccount() as account:
                token = await self._tokens.token(account, trusted=bool(key.alias))
                return [*headers, ("authorization", f"Bearer {token}")]


def _header(secret: str, planned: PlannedStep) -> tuple[str, str]:
    """Return the header of a key.

    Bedrock Mantle takes a Bedrock API key in Anthropic's header (Cloudflare's usage/providers/bedrock).
    """
    if planned.provider.slug == "aws-bedrock" and _bedrock_part(planned, 0) == MANTLE:
        return "x-api-key", secret
    credential = planned.provider.credential
    return credential.header, credential.value(secret)


def _scope(planned: PlannedStep, key: AwsKey) -> CredentialScope:
    """Return service and region: endpoints are `bedrock-runtime/REGION/…` or `bedrock-mantle/REGION/…`.

    With another base URL, an endpoint has neither.
    """
    service = _BEDROCK_ENDPOINTS.get(_bedrock_part(planned, 0))
    return CredentialScope(
        service or "bedrock", (_bedrock_part(planned, 1) if service else None) or key.region or "us-east-1"
    )


def _bedrock_part(planned: PlannedStep, index: int) -> str:
    segments = planned.step.endpoint.removeprefix("/").split("/", 2)
    return segments[index] if index < len(segments) else ""
