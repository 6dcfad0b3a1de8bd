"""Code for connecting to the demo's bridge: three snippets that work as printed."""

import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_JAVASCRIPT = """\
const Socket = globalThis.WebSocket ?? require("ws");
const socket = new Socket("%(url)s");
let text = "";

socket.onopen = () => socket.send(JSON.stringify(%(message)s));
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "universal.stream") {
    text += frame.response.delta?.text ?? "";
  } else if (frame.type !== "universal.created" || "response" in frame) {
    console.log(text);
    socket.close();
  }
};"""

_PYTHON = """\
import json
from websockets.sync.client import connect

MESSAGE = '''%(message)s'''

with connect("%(url)s") as socket:
    socket.send(MESSAGE)
    for message in socket:
        frame = json.loads(message)
        if frame["type"] == "universal.stream":
            print(frame["response"].get("delta", {}).get("text", ""), end="", flush=True)
        elif frame["type"] != "universal.created" or "response" in frame:
            break
print()"""

_SHELL = """\
%(bridge)s call %(provider)s %(endpoint)s \\
    --url %(url)s \\
    --data %(data)s"""


@dataclass(frozen=True, slots=True)
class Snippets:
    shell: str
    python: str
    javascript: str


def snippets(url: str, step: dict[str, Any], bridge: str) -> Snippets:
    """Return snippets that send `step` and print its text. `bridge` is the command for the shell."""
    message = json.dumps({"type": "universal.create", "request": {"eventId": "my-request", **step}}, indent=2)
    data = shlex.quote(json.dumps(step["query"], separators=(",", ":")))
    return Snippets(
        shell=_SHELL % {"bridge": bridge, "url": url, "data": data, **step},
        python=_PYTHON % {"url": url, "message": message},
        javascript=_JAVASCRIPT % {"url": url, "message": message},
    )


def command() -> str:
    """Return the shell command of this program: its name if PATH leads to it, since iproute2 has a `bridge` too."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m bridge"
    found = shutil.which(program.name)
    if found is not None and program.exists() and os.path.samefile(found, program):
        return program.name
    return shlex.quote(os.path.abspath(program))
