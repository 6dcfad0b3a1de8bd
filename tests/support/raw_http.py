"""A raw HTTP client: for requests that no library sends, and to see the framing of responses."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from tests.support.raw_client import HasUrl, RawClient, connect_raw

ACCOUNT = "/v1/account"
GATEWAY = f"{ACCOUNT}/gateway"
CHAT = f"{GATEWAY}/openai/v1/chat/completions"
CHAT_BODY = b'{"model":"small","stream":true}'


@dataclass(frozen=True)
class HttpResult:
    """A response; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool
    """True if the framing defines the end of the body and the end was received."""

    @property
    def code(self) -> int:
        """Check the bridge's error body, and return its code."""
        error = orjson.loads(self.body)
        assert error["name"] == "AiGatewayError"
        assert error["httpCode"] == self.status
        return int(error["internalCode"])


class HttpClient:
    """One connection. Only requested data is read, apart from a few KB of buffer."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw
        self._reader = raw._reader
        self.methods: list[str] = []
        """The methods of the requests whose responses are not read yet."""

    async def send_request(
        self,
        method: str = "POST",
        path: str = CHAT,
        body: bytes | None = CHAT_BODY,
        headers: Mapping[str, str] | None = None,
        *,
        version: str = "1.1",
    ) -> None:
        """Send one request, with `Content-Length` if it has a body."""
        await self.raw.send(request(method, path, body, headers or {}, version))
        self.methods.append(method)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [line.partition(": ") for line in lines[1:-2]]
        names = [name.lower() for name, _, _ in headers]
        assert len(set(names)) == len(names), f"repeated header: {names}"
        return int(lines[0].split()[1]), {name.lower(): value for name, _, value in headers}

    async def read_response(self) -> HttpResult:
        """Read the next response as its head frames it."""
        status, headers = await self.read_head()
        body, is_complete = await self._body(self.methods.pop(0), status, headers)
        return HttpResult(status, headers, body, is_complete)

    async def read_chunk(self) -> bytes:
        """Return the next chunk of a chunked body; empty at its end. Raises IncompleteReadError if it is cut."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = await self._reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def __call__(self, *args: object, **kwargs: object) -> HttpResult:
        await self.send_request(*args, **kwargs)  # type: ignore[arg-type]  # checked by send_request's callers
        return await self.read_response()

    async def _body(self, method: str, status: int, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        if method == "HEAD" or status in {204, 304}:
            return b"", True
        if "content-length" in headers:
            assert "transfer-encoding" not in headers
            return await self._reader.readexactly(int(headers["content-length"])), True
        if headers.get("transfer-encoding") != "chunked":
            assert headers["connection"] == "close"
            return await self._until_close()
        body = b""
        try:
            while data := await self.read_chunk():
                body += data
        except (asyncio.IncompleteReadError, ConnectionError):
            return body, False
        return body, True

    async def _until_close(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while data := await self._reader.read(65_536):
                body += data
        except ConnectionError:
            return body, False
        return body, True


def request(method: str, path: str, body: bytes | None, headers: Mapping[str, str], version: str = "1.1") -> bytes:
    all_headers = {"Host": "127.0.0.1", **({} if body is None else {"Content-Length": str(len(body))}), **headers}
    lines = (f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in all_headers.items()), "", "")
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


@asynccontextmanager
async def connect_http(server: HasUrl, *, receive_bytes: int = 65_536) -> AsyncIterator[HttpClient]:
    async with connect_raw(server, receive_bytes=receive_bytes) as raw:
        yield HttpClient(raw)
