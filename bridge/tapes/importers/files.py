"""Reads files of other tools and writes their exchanges as tapes."""

import gzip
import importlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from bridge.tapes.exchange import tape_exchange
from bridge.tapes.folder import TapeFolder
from bridge.tapes.importers import har, vcr
from bridge.tapes.importers.exchange import ImportedExchange, Skipped, Unusable, exchange_of

_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"


def imported(file: Path, folder: TapeFolder) -> Iterator[Path | Skipped]:
    """Write a tape of each exchange in `file`, in order. Raises Unusable for an unknown format, OSError."""
    for number, entry in enumerate(_entries(_document(file)), start=1):
        yield entry if isinstance(entry, Skipped) else _kept(entry, number, folder)


def _kept(exchange: ImportedExchange, number: int, folder: TapeFolder) -> Path | Skipped:
    try:
        return folder.keep(tape_exchange(exchange_of(exchange)))
    except Unusable as error:
        return Skipped(f"exchange {number}", str(error))


def _entries(document: Any) -> Iterator[ImportedExchange | Skipped]:
    if har.is_archive(document):
        return har.entries(document)
    if vcr.is_cassette(document):
        return vcr.entries(document)
    raise Unusable("it is neither a VCR cassette nor a HAR archive")


def _document(file: Path) -> object:
    content = file.read_bytes()
    if content.startswith(_GZIP_MAGIC):
        content = _unpacked(content)
    content = content.removeprefix(_UTF8_BOM)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return _yaml(content)


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        raise Unusable("it is damaged gzip data") from None


def _yaml(content: bytes) -> object:
    """Parse YAML. Raises Unusable, also if the optional PyYAML is not installed."""
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise Unusable(
            "it is not JSON, and YAML needs the extra `import`: pip install 'universal-bridge[import]'"
        ) from None
    try:
        # The C loader is ten times as fast but not always available.
        return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise Unusable(f"it is neither JSON nor plain YAML: {' '.join(str(error).split())}") from None
