"""The content coding of an answer is undone by its header."""

import httpx
import pytest

from bridge.formats.codings import BrotliInflater, Inflater, ZstdInflater
from bridge.upstream.inflate import inflater_for


@pytest.mark.parametrize("header", ["", "identity", "Identity, ", " identity , identity"])
def test_nothing_is_undone_where_nothing_was_done(header: str) -> None:
    assert inflater_for(header) is None


@pytest.mark.parametrize("header", ["gzip", "GZip", "x-gzip", "deflate", "identity, gzip"])
def test_gzip_and_deflate_are_undone(header: str) -> None:
    assert isinstance(inflater_for(header), Inflater)


@pytest.mark.parametrize(("header", "kind"), [("br", BrotliInflater), ("zstd", ZstdInflater)])
def test_brotli_and_zstandard_are_undone(header: str, kind: type) -> None:
    assert isinstance(inflater_for(header), kind)


@pytest.mark.parametrize("header", ["compress", "gzip, gzip", "deflate, br", "aes128gcm"])
def test_any_other_coding_is_named_in_the_error(header: str) -> None:
    with pytest.raises(httpx.DecodingError, match=header):
        inflater_for(header)
