-- One row per key, tombstones included. `value` comes last, so that reading the other columns never walks its pages.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,              -- bucket, a zero byte, key: sorts as keys do within a bucket
    partition INTEGER NOT NULL,
    version INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,           -- milliseconds since the Unix epoch
    expires_at INTEGER,                     -- likewise; NULL: never
    size INTEGER NOT NULL,                  -- bytes of the value, wherever it is
    content_type TEXT NOT NULL,
    checksum INTEGER NOT NULL,              -- of the value, seeded with name and version
    tombstone INTEGER NOT NULL,
    dirty INTEGER NOT NULL,                 -- the object store has not got this version
    object_version INTEGER NOT NULL,        -- the version that it has; 0: none
    value BLOB                              -- NULL: a tombstone, or a value that only the object store holds
) STRICT;

CREATE INDEX entries_by_partition ON entries (partition);
CREATE INDEX entries_dirty ON entries (modified_at) WHERE dirty = 1;
CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL AND tombstone = 0;
CREATE INDEX entries_tombstones ON entries (partition) WHERE tombstone = 1;

-- A partition stands here exactly while this node's rows of it are authoritative, for one generation of its data.
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    last_version INTEGER NOT NULL           -- at least that of every row that was ever removed
) STRICT;

CREATE TABLE identity (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
