"""Settings of the process: listening address, bounds, timeouts, storage, logging."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bridge.settings.kinds import LONGEST_MS, Choice, Converter, File, Flag, Number, NumberOrZero, Pattern, Text
from bridge.settings.redis_url import RedisUrl, RedisUrlConverter
from bridge.settings.token_reference import TokenReference, TokenReferenceConverter

ENVIRONMENT_PREFIX: Final = "BRIDGE_SERVER_"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Values of all server settings; `SERVER` describes each. Times are milliseconds."""

    host: str = "127.0.0.1"
    port: int = 8787
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_message_bytes: int = 67_108_864
    max_in_flight: int = 256
    max_steps: int = 32
    max_headers: int = 100
    max_header_bytes: int = 32_768
    max_json_depth: int = 512
    max_item_bytes: int = 67_108_864
    max_buffered_bytes: int = 268_435_456
    memory_budget_bytes: int = 2_147_483_648
    max_sockets: int = 10_000
    handshake_timeout: int = 10_000
    keep_alive_timeout: int = 75_000
    ping_interval: int = 20_000
    peer_timeout: int = 60_000
    slow_client_timeout: int = 60_000
    drain_timeout: int = 30_000
    realtime_handshake_timeout: int = 30_000
    realtime_idle_timeout: int = 900_000
    realtime_session_timeout: int = 14_400_000
    allow_open: bool = False
    workers: int = 1
    redis_url: RedisUrl | None = None
    redis_prefix: str = "bridge"
    redis_timeout: int = 250
    cache_bytes: int = 268_435_456
    cache_path: Path | None = None
    cache_file_bytes: int = 1_073_741_824
    metrics: bool = True
    metrics_token: TokenReference | None = None
    log_path: Path | None = None
    log_payload_bytes: int = 16_384
    log_days: int = 30
    budgets_path: Path | None = None
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class ServerSetting:
    """One row of the table of server settings."""

    name: str
    default: object
    kind: Converter
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper()


_MS: Final = Number(1, LONGEST_MS, "milliseconds")
_BYTES: Final = Number(1024, None, "bytes")
_COUNT: Final = Number(1)

_Row = ServerSetting
SERVER: Final[tuple[ServerSetting, ...]] = (
    _Row("host", "127.0.0.1", Text(), "The address to listen on."),
    _Row("port", 8787, Number(0, 65_535), "The port to listen on. 0: any free port, which the ready line names."),
    _Row("tls_cert", None, File(), "The certificate chain (PEM) to serve wss:// and https:// with."),
    _Row("tls_key", None, File(), "The private key (PEM) of that certificate."),
    _Row("max_message_bytes", 67_108_864, _BYTES, "Longest message of a client."),
    _Row("max_in_flight", 256, _COUNT, "Events in flight per socket."),
    _Row("max_steps", 32, _COUNT, "Steps per event."),
    _Row("max_headers", 100, _COUNT, "Headers per step."),
    _Row("max_header_bytes", 32_768, _BYTES, "Length of all headers of one step together."),
    _Row("max_json_depth", 512, Number(8, 1000), "Nesting depth of a message's JSON."),
    _Row("max_item_bytes", 67_108_864, _BYTES, "Longest single item of a provider's stream."),
    _Row("max_buffered_bytes", 268_435_456, _BYTES, "Memory that one socket may hold before reading for it pauses."),
    _Row("memory_budget_bytes", 2_147_483_648, _BYTES, "Memory that all sockets of a process may hold together."),
    _Row("max_sockets", 10_000, _COUNT, "Client connections per process."),
    _Row("handshake_timeout", 10_000, _MS, "Longest time until a client has sent its handshake or its first request."),
    _Row("keep_alive_timeout", 75_000, _MS, "Longest idle time of an HTTP connection between two requests."),
    _Row("ping_interval", 20_000, _MS, "Silence of a client after which it is pinged."),
    _Row("peer_timeout", 60_000, _MS, "Silence of a client after which it counts as gone, if it also takes nothing."),
    _Row("slow_client_timeout", 60_000, _MS, "Longest time that a client may take nothing while frames wait for it."),
    _Row(
        "drain_timeout",
        30_000,
        Number(0, LONGEST_MS, "milliseconds"),
        "Longest time that a shutdown waits for events in flight.",
    ),
    _Row(
        "realtime_handshake_timeout",
        30_000,
        _MS,
        "Longest time for a provider to answer the handshake of a realtime session.",
    ),
    _Row(
        "realtime_idle_timeout",
        900_000,
        NumberOrZero(_MS),
        "Longest silence of a realtime session in both directions. 0: no limit.",
    ),
    _Row(
        "realtime_session_timeout",
        14_400_000,
        NumberOrZero(_MS),
        "Longest duration of a realtime session. 0: no limit.",
    ),
    _Row("allow_open", False, Flag(), "Let other machines reach a gateway without tokens."),
    _Row(
        "workers", 1, Number(1, 256), "Number of serving processes. Bounds of memory and sockets hold for each of them."
    ),
    _Row(
        "redis_url",
        None,
        RedisUrlConverter(),
        "The Redis that shares limits, cache and breakers between processes (extra `redis`).",
    ),
    _Row(
        "redis_prefix",
        "bridge",
        Pattern(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 of A-Z a-z 0-9 _ . -"),
        "Prefix of every key in Redis. Bridges with the same prefix share everything.",
    ),
    _Row("redis_timeout", 250, _MS, "Longest time of a Redis command before the process continues without Redis."),
    _Row(
        "cache_bytes",
        268_435_456,
        Number(0, None, "bytes"),
        "Memory for cached answers, and as much again for answers that are being received. 0: no cache.",
    ),
    _Row("cache_path", None, File(), "SQLite file that also keeps cached answers, in place of Redis."),
    _Row("cache_file_bytes", 1_073_741_824, Number(1 << 20, None, "bytes"), "Largest size of that file."),
    _Row("metrics", True, Flag(), "Collect metrics and serve them at `/metrics`."),
    _Row(
        "metrics_token",
        None,
        TokenReferenceConverter(),
        "Token for readers of `/metrics` (`env:`, `file:` or `sha256:`). Not set: only this machine may read.",
    ),
    _Row("log_path", None, File(), "SQLite file of the request log, one row per event. Not set: no request log."),
    _Row(
        "log_payload_bytes",
        16_384,
        Number(0, 10_000_000, "bytes"),
        "Bytes of the request's and of the answer's body that a row of the request log holds. 0: none.",
    ),
    _Row("log_days", 30, Number(0, 36_500, "days"), "Days that a row of the request log is kept. 0: no limit."),
    _Row(
        "budgets_path",
        None,
        File(),
        "SQLite file that keeps the spending of budgets across restarts, without Redis. Not set: beside `log_path`.",
    ),
    _Row(
        "log_format",
        "auto",
        Choice(("auto", "json", "text")),
        "Format of log lines. `auto`: text on a terminal, else JSON.",
    ),
    _Row(
        "log_level",
        "info",
        Choice(("debug", "info", "warning", "error")),
        "Lowest level of log lines that are written.",
    ),
)
