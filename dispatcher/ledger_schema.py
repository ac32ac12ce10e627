"""The schema of the ledger, as the steps that made it: each brings a file one version up.

A step that was released is never changed; a new version is a new step at the end. Money is integer
micro-dollars; times are text in UTC (``2026-11-20T10:11:12.345678Z``).
"""

from __future__ import annotations

APPLICATION_ID = 0x4C4C4D44
"""``LLMD``: tells our files from those of other programs (``PRAGMA application_id``)."""

_ATTEMPTS = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    vendor TEXT NOT NULL,
    model TEXT NOT NULL,
    key_fingerprint TEXT NOT NULL,
    tags TEXT NOT NULL,              -- a JSON list
    fate TEXT NOT NULL,              -- a word of Fate
    started_at TEXT NOT NULL,        -- by the clock of the machine
    ended_at TEXT,
    day TEXT NOT NULL,               -- whose budget it counts for; never before an earlier row's
    error_class TEXT NOT NULL DEFAULT '',
    status INTEGER,
    vendor_request_id TEXT NOT NULL DEFAULT '',
    served_model TEXT NOT NULL DEFAULT '',
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    estimated INTEGER NOT NULL DEFAULT 0,
    charged_microusd INTEGER,        -- what the vendor says that it charged
    cost_microusd INTEGER,           -- NULL: not known
    counted_microusd INTEGER NOT NULL DEFAULT 0,  -- under caps: the cost, or the worst case
    reserved_microusd INTEGER,       -- the worst case; NULL: no cap concerned it
    price_version TEXT NOT NULL DEFAULT '',
    latency_s REAL,
    first_token_s REAL,
    load_s REAL,
    retry_of INTEGER,                -- the number of an attempt of unknown outcome
    unknown_outcome INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL,             -- the process
    expires_s REAL,                  -- seconds since 1970
    expired_at TEXT
)
"""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        _ATTEMPTS,
        "CREATE INDEX attempts_started ON attempts (started_at)",
        "CREATE INDEX attempts_open ON attempts (owner) WHERE fate = 'open'",
        """
        CREATE TABLE accounts (
            scope TEXT NOT NULL,
            name TEXT NOT NULL,
            start TEXT NOT NULL,
            spent_microusd INTEGER NOT NULL,
            reserved_microusd INTEGER NOT NULL,
            PRIMARY KEY (scope, name, start)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE alerts (
            scope TEXT NOT NULL,
            name TEXT NOT NULL,
            start TEXT NOT NULL,
            limit_microusd INTEGER NOT NULL,
            percent INTEGER NOT NULL,
            PRIMARY KEY (scope, name, start, limit_microusd, percent)
        ) WITHOUT ROWID
        """,
        "CREATE TABLE clock (one INTEGER PRIMARY KEY CHECK (one = 1), last_s REAL NOT NULL)",
        "INSERT INTO clock VALUES (1, 0)",
    ),
    (
        """
        CREATE TABLE shared_state (
            key TEXT PRIMARY KEY,
            value TEXT NOT NULL,
            updated_at REAL NOT NULL
        ) WITHOUT ROWID
        """,
    ),
)

VERSION = len(STEPS)
