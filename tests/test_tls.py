"""Certificates: one that fits its key is served, and any other pair is told in a line before anything listens."""

from pathlib import Path

import pytest

from bridge.config import ConfigError
from bridge.server_settings import ServerSettings
from bridge.tls import server_context

FOLDER = Path(__file__).parent.parent / "fixtures" / "tls"
CERTIFICATE, KEY = FOLDER / "localhost.pem", FOLDER / "localhost-key.pem"


def test_without_a_certificate_there_is_no_tls():
    assert server_context(ServerSettings()) is None


def test_a_certificate_and_its_key_make_a_context():
    assert server_context(ServerSettings(tls_cert=CERTIFICATE, tls_key=KEY)) is not None


@pytest.mark.parametrize(
    ("certificate", "key", "why"),
    [
        (KEY, KEY, "both in PEM"),
        (CERTIFICATE, CERTIFICATE, "both in PEM"),
        (FOLDER / "none.pem", KEY, "No such file or directory"),
    ],
)
def test_a_pair_that_cannot_be_used_says_so_in_one_line(certificate, key, why):
    with pytest.raises(ConfigError) as refused:
        server_context(ServerSettings(tls_cert=certificate, tls_key=key))
    [problem] = refused.value.problems
    assert problem.key == "tls_cert, tls_key"
    assert f"{certificate} and {key} cannot be used: " in problem.message
    assert problem.message.endswith(why)
