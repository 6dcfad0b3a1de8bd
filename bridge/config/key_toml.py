"""`[gateways.NAME.keys.PROVIDER]`: the keys that a gateway keeps, by alias. Nothing of them is ever repeated."""

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
"""As Cloudflare stores it (ai-gateway/usage/providers/bedrock), and as it stands in our table."""
_AWS_NEEDED: Final = ("access_key_id", "secret_access_key")
_ACCOUNT_NEEDED: Final = ("client_email", "private_key", "token_uri")


class _Needed(NamedTuple):
    module: str
    extra: str


_NEEDED: Final[Mapping[type, _Needed]] = {
    AwsKey: _Needed("botocore", "aws"),
    GoogleAccount: _Needed("google.auth", "gcp"),
}


def keys_of(reader: Reader, given: object) -> dict[tuple[str, str], StoredKey]:
    keys: dict[tuple[str, str], StoredKey] = {}
    for name, aliases in reader.table(given).items():
        below = reader.below(name)
        try:
            slug = reader.slug(name)
        except ValueError as error:
            below.problem(str(error))
            continue
        keys |= {(slug, alias): key for alias, key in _by_alias(below, slug, aliases)}
    return keys


def _by_alias(reader: Reader, slug: str, given: object) -> list[tuple[str, StoredKey]]:
    found = []
    for alias, value in reader.table(given).items():
        try:
            _ALIAS.convert(alias)
            found.append((alias, StoredKey(slug, alias, *_secret(reader.below(alias), slug, value))))
        except ValueError as error:
            reader.problem(str(error), alias)
    return found


def _secret(reader: Reader, slug: str, given: object) -> tuple[Secret, str]:
    """With how it is given. Raises ValueError, which says nothing of what it is."""
    secret, where = _read(reader, slug, given)
    needed = _NEEDED.get(type(secret))
    if needed is not None and not _is_installed(needed.module):
        raise ValueError(
            f"this sort of key needs the extra {needed.extra}: pip install 'universal-bridge[{needed.extra}]'"
        )
    return secret, where


def _read(reader: Reader, slug: str, given: object) -> tuple[Secret, str]:
    if slug == "aws-bedrock" and isinstance(given, Mapping):
        return _aws_table(reader, given), str(given["access_key_id"])
    text, where = reader.secrets.read(given, "a key"), str(given)
    if not text.startswith("{"):
        return _sendable(text, where), where
    if slug not in _JSON:
        raise ValueError(f"{where} holds JSON, and a key of {slug} is none")
    return _JSON[slug](text, where), where


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is not there
        return False


def _sendable(key: str, where: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{where} holds what no header can carry: several lines, or other characters than ASCII's")
    return key


def _aws_table(reader: Reader, given: Mapping[str, object]) -> AwsKey:
    """Of references; the region is no secret."""
    missing = [name for name in _AWS_NEEDED if name not in given]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given")
    read = reader.secrets.read
    takers = dict.fromkeys(("access_key_id", "secret_access_key", "session_token"), read)
    taken = reader.take(given, {**takers, "region": reader.secrets.text})
    return AwsKey(**dict.fromkeys(_AWS_NEEDED, "") | taken)


def _aws_json(text: str, where: str) -> AwsKey:
    given = _object(text, where)
    values = {ours: given[theirs] for theirs, ours in _AWS.items() if isinstance(given.get(theirs), str)}
    if not values.keys() >= set(_AWS_NEEDED):
        raise ValueError(f"{where} holds no AWS credentials: accessKeyId and secretAccessKey are wanted")
    return AwsKey(**values)


def _google_json(text: str, where: str) -> GoogleAccount:
    given = _object(text, where)
    missing = [name for name in _ACCOUNT_NEEDED if not isinstance(given.get(name), str)]
    if missing:
        raise ValueError(f"{where} holds no service account: {' and '.join(missing)} is wanted")
    return GoogleAccount(text)


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ValueError(f"{where} begins like JSON and is none") from None
    return found


_JSON: Final[Mapping[str, Callable[[str, str], Secret]]] = {
    "aws-bedrock": _aws_json,
    "google-vertex-ai": _google_json,
}
