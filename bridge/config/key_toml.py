"""Read `[gateways.NAME.keys.PROVIDER]`: stored keys by alias. Messages never contain a key."""

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from bridge.config.keys import AwsKey, GoogleAccount, Secret, StoredKey
from bridge.config.reader import Reader
from bridge.settings.step import SETTINGS

_ALIAS: Final = next(setting.kind for setting in SETTINGS if setting.name == "byok_alias")
_AWS: Final = {
    "accessKeyId": "access_key_id",
    "secretAccessKey": "secret_access_key",
    "sessionToken": "session_token",
    "region": "region",
}
"""Cloudflare's names (ai-gateway/usage/providers/bedrock) and the bridge's names."""
_AWS_REQUIRED: Final = ("access_key_id", "secret_access_key")
_ACCOUNT_REQUIRED: Final = ("client_email", "private_key", "token_uri")


class _Package(NamedTuple):
    module: str
    extra: str


_PACKAGES: Final[Mapping[type, _Package]] = {
    AwsKey: _Package("botocore", "aws"),
    GoogleAccount: _Package("google.auth", "gcp"),
}


def keys_of(reader: Reader, value: object) -> dict[tuple[str, str], StoredKey]:
    keys: dict[tuple[str, str], StoredKey] = {}
    for name, aliases in reader.table(value).items():
        below = reader.below(name)
        try:
            slug = reader.slug(name)
        except ValueError as error:
            below.problem(str(error))
            continue
        keys |= {(slug, alias): key for alias, key in _by_alias(below, slug, aliases)}
    return keys


def _by_alias(reader: Reader, slug: str, value: object) -> list[tuple[str, StoredKey]]:
    keys = []
    for alias, secret in reader.table(value).items():
        try:
            _ALIAS.convert(alias)
            keys.append((alias, StoredKey(slug, alias, *_secret(reader.below(alias), slug, secret))))
        except ValueError as error:
            reader.problem(str(error), alias)
    return keys


def _secret(reader: Reader, slug: str, value: object) -> tuple[Secret, str]:
    """Return the secret and its configured form. Raises ValueError, whose message never contains the secret."""
    secret, source = _read(reader, slug, value)
    package = _PACKAGES.get(type(secret))
    if package is not None and not _is_installed(package.module):
        raise ValueError(f"this key needs the extra {package.extra}: pip install 'universal-bridge[{package.extra}]'")
    return secret, source


def _read(reader: Reader, slug: str, value: object) -> tuple[Secret, str]:
    if slug == "aws-bedrock" and isinstance(value, Mapping):
        return _aws_table(reader, value), str(value["access_key_id"])
    text, source = reader.secrets.read(value, "a key"), str(value)
    if not text.startswith("{"):
        return _sendable(text, source), source
    if slug not in _JSON:
        raise ValueError(f"{source} contains JSON, but a key of {slug} is plain text")
    return _JSON[slug](text, source), source


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _sendable(key: str, source: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{source} is not valid in a header: it has several lines or non-ASCII characters")
    return key


def _aws_table(reader: Reader, value: Mapping[str, object]) -> AwsKey:
    """Read a table of references; the region is plain text."""
    missing = [name for name in _AWS_REQUIRED if name not in value]
    if missing:
        raise ValueError(f"missing {' and '.join(missing)}")
    read = reader.secrets.read
    converters = dict.fromkeys(("access_key_id", "secret_access_key", "session_token"), read)
    values = reader.take(value, {**converters, "region": reader.secrets.text})
    return AwsKey(**dict.fromkeys(_AWS_REQUIRED, "") | values)


def _aws_json(text: str, source: str) -> AwsKey:
    document = _object(text, source)
    values = {name: document[key] for key, name in _AWS.items() if isinstance(document.get(key), str)}
    if not values.keys() >= set(_AWS_REQUIRED):
        raise ValueError(f"{source} contains no AWS credentials: accessKeyId and secretAccessKey are required")
    return AwsKey(**values)


def _google_json(text: str, source: str) -> GoogleAccount:
    document = _object(text, source)
    missing = [name for name in _ACCOUNT_REQUIRED if not isinstance(document.get(name), str)]
    if missing:
        raise ValueError(f"{source} is not a service account: missing {' and '.join(missing)}")
    return GoogleAccount(text)


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ValueError(f"{source} begins like JSON but is not valid JSON") from None
    return document


_JSON: Final[Mapping[str, Callable[[str, str], Secret]]] = {
    "aws-bedrock": _aws_json,
    "google-vertex-ai": _google_json,
}
