"""What a row of the request log is, and the tables that hold it.

Names are those of Cloudflare's log records (PROVIDERS.md 3.7) where it has the field. Migrations are run in their
order, each once, in one transaction; the number of those that a file has seen is its `user_version`. What has been
released is never changed: a new version adds a migration, and a migration only adds.
"""

from typing import Final, NamedTuple

APPLICATION_ID: Final = 0x55426C67
"""Tells a request log from any other SQLite file; "UBlg"."""


class LogRow(NamedTuple):
    """One event, redacted. Times in milliseconds, sizes in bytes; the fields are the columns that are written."""

    id: str
    """UUIDv7: rows sort by it as they began."""
    created_at: int
    """Milliseconds since 1970."""
    account: str
    gateway: str
    token: str | None
    request_type: str
    """websocket, http or realtime."""
    event_id: str
    provider: str | None
    model: str | None
    method: str | None
    path: str | None
    step: int
    status_code: int
    success: bool
    cached: bool
    duration: float
    first_answer: float | None
    added: float | None
    """What the bridge itself took before it called a provider."""
    chunks: int
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    tokens_cache_write: int | None
    cost: float | None
    """US dollars."""
    cost_source: str | None
    """custom, provider, prices or cache."""
    cost_estimated: bool
    byok: str | None
    """The stored key's alias."""
    code: int | None
    reason: str | None
    metadata: str | None
    """These three are JSON."""
    attempts: str | None
    warnings: str | None
    request_content_type: str | None
    request_size: int
    request_head_complete: bool
    response_content_type: str | None
    response_size: int
    response_head_complete: bool
    request_head: str | bytes | None
    """The beginning of the body; bytes where it is no text."""
    response_head: str | bytes | None
    tokens_in_audio: int | None = None
    """Those of `tokens_in` that were sound; likewise the next."""
    tokens_out_audio: int | None = None
    messages_from_client: int | None = None
    """These four are a realtime session's."""
    messages_from_provider: int | None = None
    closed_by: str | None = None
    """client, provider or bridge."""
    close_code: int | None = None
    """That this one gave; 1005 without one, 1006 without a goodbye."""
    refused: bool = False
    """The event failed before a provider was called."""


MIGRATIONS: Final = (
    """
    CREATE TABLE requests (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        account TEXT NOT NULL,
        gateway TEXT NOT NULL,
        token TEXT,
        request_type TEXT NOT NULL,
        event_id TEXT NOT NULL,
        provider TEXT,
        model TEXT,
        method TEXT,
        path TEXT,
        step INTEGER NOT NULL,
        status_code INTEGER NOT NULL,
        success INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        duration REAL NOT NULL,
        first_answer REAL,
        added REAL,
        chunks INTEGER NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER,
        tokens_cached INTEGER,
        tokens_cache_write INTEGER,
        cost REAL,
        cost_source TEXT,
        cost_estimated INTEGER NOT NULL,
        custom_cost INTEGER AS (cost_source IS 'custom') VIRTUAL,
        byok TEXT,
        code INTEGER,
        reason TEXT,
        metadata TEXT,
        attempts TEXT,
        warnings TEXT,
        score REAL,
        feedback INTEGER,
        request_content_type TEXT,
        request_size INTEGER NOT NULL,
        request_head_complete INTEGER NOT NULL,
        response_content_type TEXT,
        response_size INTEGER NOT NULL,
        response_head_complete INTEGER NOT NULL,
        request_head,
        response_head
    );
    CREATE INDEX requests_of_gateway ON requests (gateway);
    CREATE TABLE kept (gateway TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE requests ADD COLUMN tokens_in_audio INTEGER;
    ALTER TABLE requests ADD COLUMN tokens_out_audio INTEGER;
    ALTER TABLE requests ADD COLUMN messages_from_client INTEGER;
    ALTER TABLE requests ADD COLUMN messages_from_provider INTEGER;
    ALTER TABLE requests ADD COLUMN closed_by TEXT;
    ALTER TABLE requests ADD COLUMN close_code INTEGER;
    """,
    """
    ALTER TABLE requests ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX requests_of_share ON requests (gateway, refused, token);
    CREATE TABLE shares (
        gateway TEXT NOT NULL,
        refused INTEGER NOT NULL,
        token TEXT NOT NULL,
        rows INTEGER NOT NULL,
        PRIMARY KEY (gateway, refused, token)
    ) WITHOUT ROWID;
    INSERT INTO shares SELECT gateway, refused, coalesce(token, ''), count(*) FROM requests GROUP BY 1, 2, 3;
    """,
)
"""`seq` is the order in which rows were written, and that in which they are deleted. `kept` counts each gateway's rows:
it changes in the same transaction as they do, so that it is right whoever writes. `shares` counts them by token, and
refused events apart; a process of an earlier version does not, so that it may be wrong where both write to one file.
"""

VERSION: Final = len(MIGRATIONS)

_ROW: Final = f"({', '.join('?' * len(LogRow._fields))})"


def insert(rows: int) -> str:
    """A statement that takes so many rows, their values one after the other."""
    return f"INSERT INTO requests ({', '.join(LogRow._fields)}) VALUES {', '.join([_ROW] * rows)}"  # noqa: S608 - own names
