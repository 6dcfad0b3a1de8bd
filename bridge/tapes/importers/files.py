"""Files that other tools recorded, read and made tapes."""

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
    """Makes a tape of each exchange in `file`, in its order. Raises Unusable when it holds none, OSError."""
    for number, entry in enumerate(_entries(_document(file)), start=1):
        yield entry if isinstance(entry, Skipped) else _kept(entry, number, folder)


def _kept(foreign: ImportedExchange, number: int, folder: TapeFolder) -> Path | Skipped:
    try:
        return folder.keep(tape_exchange(exchange_of(foreign)))
    except Unusable as error:
        return Skipped(f"exchange {number}", str(error))


def _entries(document: Any) -> Iterator[ImportedExchange | Skipped]:
    if har.is_archive(document):
        return har.entries(document)
    if vcr.is_cassette(document):
        return vcr.entries(document)
    raise Unusable("it is neither a cassette of VCR nor a HAR")


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
        raise Unusable("it begins like gzip, but is damaged") from None


def _yaml(content: bytes) -> object:
    """Raises Unusable; also without PyYAML, for an application that imports nothing has no need of it."""
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise Unusable("it is no JSON, and YAML needs an extra: pip install 'universal-bridge[import]'") from None
    try:
        # Written in C it is ten times as fast, but not everywhere there.
        return yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise Unusable(f"it is neither JSON nor plain YAML: {' '.join(str(error).split())}") from None
