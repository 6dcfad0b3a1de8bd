"""AWS Signature Version 4, made by botocore (the extra `aws`) over exactly what goes out.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import asyncio
import logging
from typing import Final, NamedTuple

from bridge.config.keys import AwsKey
from bridge.errors import KeyUnusable
from bridge.providers import Target
from bridge.upstream.http import Call

# At its level DEBUG it writes down what it signs, the session token with it.
logging.getLogger("botocore").setLevel(logging.WARNING)

OFF_LOOP_BYTES: Final = 1 << 20
"""From here on a body is hashed in a thread."""

_MADE_ANEW: Final = {"x-amz-date", "x-amz-security-token", "x-amz-content-sha256"}

Headers = list[tuple[str, str]]
"""Names in lower case."""


class CredentialScope(NamedTuple):
    service: str
    region: str


async def sign(call: Call, headers: Headers, key: AwsKey, scope: CredentialScope) -> Headers:
    """`headers`, and what signs the call with them: method, path, query, body, host, content type, and AWS's own.

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
        raise KeyUnusable("AWS keys sign with botocore: pip install 'universal-bridge[aws]'") from None
    kept = [(name, value) for name, value in headers if name not in _MADE_ANEW]
    covered = {name: value for name, value in kept if name == "content-type" or name.startswith("x-amz-")}
    request = AWSRequest(call.method, _url(call.target), headers=covered, data=call.body)
    credentials = Credentials(key.access_key_id, key.secret_access_key, key.session_token)
    SigV4Auth(credentials, scope.service, scope.region).add_auth(request)
    made = ((name.lower(), value) for name, value in request.headers.items())
    return kept + [(name, value) for name, value in made if name not in covered]


def _url(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    port = f":{target.port}" if target.port else ""
    return f"{target.scheme}://{host}{port}{target.raw_path.decode('ascii')}"
