"""The page on tapes shows what a replay answers, and faults that exist."""

import re
import shutil
from pathlib import Path

import aiohttp
import orjson

from bridge.docs import pages
from bridge.tapes.fault_injection import HEADER, parse_fault
from bridge.tapes.library import Library
from tests.support.examples import blocks, text_of
from tests.support.paths import FIXTURES
from tests.support.tapes import replaying

PAGE = pages.read("tapes").markdown
QUERY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hi."}]}


async def test_the_answer_to_a_request_without_a_tape_is_the_one_shown(tmp_path: Path) -> None:
    (tmp_path / "openai").mkdir()
    shutil.copy(FIXTURES / "tapes" / "openai" / "chat-plain.jsonl", tmp_path / "openai")
    async with (
        replaying(Library(tmp_path)) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/chat/completions", data=orjson.dumps(QUERY)) as response,
    ):
        assert response.status == 404
        assert (await response.json())["error"]["message"] == blocks("tapes", "text")[0].strip()


def test_the_faults_of_the_page_are_understood() -> None:
    faults = re.findall(r"^\| `([a-z]+[@:][^`]+)` \|", PAGE, re.MULTILINE)
    assert len(faults) == 4
    for fault in faults:
        parse_fault(fault)
    assert f"`{HEADER}: reset@chunk:7, slow:2x`" in text_of("tapes")
