"""AWS Signature Version 4, computed by botocore (the extra `aws`) over the request as it is sent.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import asyncio
import logging
from typing import Final, NamedTuple

from bridge.config.keys import AwsKey
from bridge.errors import KeyUnusable
from bridge.providers import Target
from bridge.upstream.http import Call

# At level DEBUG, botocore logs the signed content including the session token.
logging.getLogger("botocore").setLevel(logging.WARNING)

OFF_LOOP_BYTES: Final = 1 << 20
"""Bodies of at least this size are hashed in a thread."""

_SIGNED_HEADERS: Final = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}

Headers = list[tuple[str, str]]
"""Header pairs with lower-case names."""


class CredentialScope(NamedTuple):
    service: str
    region: str


async def sign(call: Call, headers: Headers, key: AwsKey, scope: CredentialScope) -> Headers:
    """Return `headers` with the headers that sign the call: method, path, query, body, host, content type, x-amz-*.

    Raises KeyUnusable.
    """
    if len(call.body) < OFF_LOOP_BYTES:
        return _signed(call, headers, key, scope)
    return await asyncio.to_thread(_signed, call, headers, key, scope)


def _signed(call: Call, headers: Headers, key: AwsKey, scope: CredentialScope) -> Headers:
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError:
        raise KeyUnusable("AWS keys need botocore: pip install 'universal-bridge[aws]'") from None
    unsigned = [(name, value) for name, value in headers if name not in _SIGNED_HEADERS]
    covered = {name: value for name, value in unsigned if name == "content-type" or name.startswith("x-amz-")}
    request = AWSRequest(call.method, _url(call.target), headers=covered, data=call.body)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    SigV4Auth(credentials, scope.service, scope.region).add_auth(request)
    signature_headers = ((name.lower(), value) for name, value in request.headers.items())
    return unsigned + [(name, value) for name, value in signature_headers if name not in covered]


def _url(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = f":{target.port}" if target.port else ""
    return f"{target.scheme}://{host}{port}{target.raw_path.decode('ascii')}"
