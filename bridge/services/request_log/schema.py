"""The rows of the request log and the tables that hold them.

Names follow Cloudflare's log records where it has the field (bridge/docs/providers.md). Migrations run in order, each
once, all in one transaction; a file's `user_version` is the number of migrations that it has seen. Released migrations
never change: a new version adds a migration, and a migration only adds.
"""

from typing import Final, NamedTuple

APPLICATION_ID: Final = 0x55426C67
"""The SQLite application id that marks a file as a request log; "UBlg"."""


class LogRow(NamedTuple):
    """One event, redacted. Times in milliseconds, sizes in bytes; the fields are the columns that are written."""

    id: str
    """A UUIDv7, so rows sort by the time at which their events began."""
    created_at: int
    """Milliseconds since 1970."""
    account: str
    gateway: str
    token: str | None
    request_type: str
    """One of websocket, http and realtime."""
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
    """The time that the bridge itself took before it called a provider."""
    chunks: int
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    tokens_cache_write: int | None
    cost: float | None
    """The cost in US dollars."""
    cost_source: str | None
    """One of custom, provider, prices and cache."""
    cost_estimated: bool
    byok: str | None
    """The alias of the stored key."""
    code: int | None
    reason: str | None
    metadata: str | None
    """A JSON text, like the next two."""
    attempts: str | None
    warnings: str | None
    request_content_type: str | None
    request_size: int
    request_head_complete: bool
    response_content_type: str | None
    response_size: int
    response_head_complete: bool
    request_head: str | bytes | None
    """The beginning of the body; bytes if it is not text."""
    response_head: str | bytes | None
    tokens_in_audio: int | None = None
    """The audio tokens among `tokens_in`; the next field likewise for `tokens_out`."""
    tokens_out_audio: int | None = None
    messages_from_client: int | None = None
    """Set for realtime sessions, like the next three."""
    messages_from_provider: int | None = None
    closed_by: str | None = None
    """One of client, provider and bridge."""
    close_code: int | None = None
    """The close code of `closed_by`; 1005 for a close frame without a code, 1006 without a close frame."""
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
"""`seq` is the order in which rows are written and deleted. `kept` counts the rows of each gateway; it changes in the
same transaction as they do, so it is right with any number of writers. `shares` counts rows by token, refused events
separately; earlier versions do not update it, so it may be wrong if they write to the same file.
"""

VERSION: Final = len(MIGRATIONS)

_ROW: Final = f"({', '.join('?' * len(LogRow._fields))})"


def insert(rows: int) -> str:
    """Return an INSERT statement for so many rows, whose values are bound one after the other."""
    return f"INSERT INTO requests ({', '.join(LogRow._fields)}) VALUES {', '.join([_ROW] * rows)}"  # noqa: S608 - own names
