from collections.abc import Iterator

import pytest

from tests.transports.aimock import serving


@pytest.fixture(scope="session")
def provider() -> Iterator[str]:
    """The URL of a provider server that somebody else wrote."""
    with serving() as url:
        yield url
