"""The page on the protocol states the bounds, times and closed lists of the code."""

import re

import msgspec
import pytest

from bridge.client import Metadata, Usage
from bridge.docs import pages
from bridge.errors import all_errors
from bridge.formats.codings import MAX_INFLATED_BYTES
from bridge.formats.dialects import DIALECTS
from bridge.formats.long_item import LONG_ITEM_BYTES
from bridge.formats.long_json import MAX_SHORT_PARTS
from bridge.policy.breaker import (
    FAILURES,
    FIRST_INTERVAL_S,
    MAX_INTERVAL_S,
    MAX_KEYS,
    MAX_KEYS_PER_TOKEN,
    WINDOW_S,
)
from bridge.policy.chain import RETRIED_STATUSES
from bridge.protocol.event_id import MAX_EVENT_ID_CHARS
from bridge.relay.stream_decoder import MAX_HELD_BYTES, MAX_HELD_ITEMS
from bridge.relay.stream_relay import HOLD_S, LINGER_S, SILENCE_S, USAGE_S
from bridge.server.auth import MAX_HEARTBEAT_S
from bridge.settings.accounting import MAX_METADATA_ENTRIES
from bridge.settings.server import ServerSettings
from bridge.settings.step import SETTINGS
from bridge.upstream.answer import PUBLIC_HEADERS_BYTES
from tests.support.examples import text_of

TEXT = text_of("protocol")
SERVER = ServerSettings()
MIB = 1 << 20


@pytest.mark.parametrize(
    "sentence",
    [
        f"At most {MAX_HELD_ITEMS} items, {MAX_HELD_BYTES // MIB} MiB, and {HOLD_S:.0f} s from the first held item",
        f"was silent for {SILENCE_S:.0f} s",
        f"read for at most {LINGER_S:.0f} s",
        f"at most {USAGE_S * 1000:.0f} ms later",
        f"{FAILURES} failures in a row within {WINDOW_S:.0f} s open the breaker for {FIRST_INTERVAL_S:.0f} s",
        f"up to {MAX_INTERVAL_S:.0f} s. A response closes",
        f"at most {MAX_KEYS:,} breakers, at most {MAX_KEYS_PER_TOKEN} per token",
        f"A string of 1 to {MAX_EVENT_ID_CHARS} characters",
        f"`?heartbeat=SECONDS` (1 to {MAX_HEARTBEAT_S})",
        f"at most {PUBLIC_HEADERS_BYTES >> 10} KiB; without hop-by-hop headers",
        f"at most {MAX_INFLATED_BYTES // MIB} MiB per event",
        f"more than {LONG_ITEM_BYTES >> 10} KiB is checked in parts",
        f"more than {MAX_SHORT_PARTS:,} JSON values",
        f"ping after {SERVER.ping_interval // 1000} s",
        f"for {SERVER.peer_timeout // 1000} s (`peer_timeout`)",
        f"| bytes of one message | {SERVER.max_message_bytes // MIB} MiB |",
        f"| events in flight per socket | {SERVER.max_in_flight} |",
        f"| steps per event | {SERVER.max_steps} |",
        f"| headers per step | {SERVER.max_headers}, together {SERVER.max_header_bytes >> 10} KiB |",
        f"| depth of a message's JSON | {SERVER.max_json_depth} |",
        f"| `metadata` entries | {MAX_METADATA_ENTRIES} |",
        f"| bytes of one stream item | {SERVER.max_item_bytes // MIB} MiB |",
        f"| bytes buffered per socket | {SERVER.max_buffered_bytes // MIB} MiB |",
        f"| bytes buffered per process | {SERVER.memory_budget_bytes >> 30} GiB |",
        f"| sockets per process | {SERVER.max_sockets:,} |",
        f"| duration of the handshake | {SERVER.handshake_timeout // 1000} s |",
        f"takes nothing | {SERVER.slow_client_timeout // 1000} s |",
    ],
)
def test_the_bounds_are_those_of_the_code(sentence: str) -> None:
    assert sentence in TEXT


def test_the_retried_statuses_are_those_of_the_code() -> None:
    assert {408, 409, 425, 429} | set(range(500, 600)) - {501, 505} == RETRIED_STATUSES
    assert "408, 409, 425, 429, 5xx except 501 and 505" in TEXT


def test_the_bookkeeping_of_every_dialect_is_listed() -> None:
    words = {word for dialect in DIALECTS for word in getattr(dialect, "bookkeeping", ())}
    assert words
    assert [word for word in words if f"`{word}`" not in TEXT] == []


def test_the_codes_that_the_page_names_exist() -> None:
    known = {error.code for error in all_errors()}
    named = {int(code) for code in re.findall(r"\b90\d\d\b", TEXT)} - {9000}
    assert named <= known


def test_every_field_of_metadata_is_described() -> None:
    section = pages.read("protocol").markdown.partition("### Metadata")[2].partition("\n### ")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert described == {field.encode_name for field in msgspec.structs.fields(Metadata)}
    counts = {field.encode_name for field in msgspec.structs.fields(Usage)}
    assert [name for name in counts if f"`{name}`" not in section] == []


def test_the_fields_of_config_that_the_page_names_exist() -> None:
    section = pages.read("protocol").markdown.partition("### More config fields")[2].partition("\n### ")[0]
    names = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert names == {"connectTimeout", "requestTimeout", "idleTimeout", "totalTimeout", "onBreak", "frames"}
    assert names <= {setting.wire for setting in SETTINGS}
