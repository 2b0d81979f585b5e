-- Tombstones are collected in the order of their rows, whichever partition they belong to.
DROP INDEX entries_tombstones;
CREATE INDEX entries_tombstones ON entries (id) WHERE tombstone = 1;

-- Idempotency keys, and what became of the first write with each: written with its row, kept for ten minutes. By version,
-- so that keys are added at the ends of partitions, in pages that are at hand: an index by key, or by age, costs more than
-- all the rest of a write. Almost all keys that are looked for are new, which memory knows, or were written just now.
CREATE TABLE idempotency (
    partition INTEGER NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    name BLOB NOT NULL,
    created INTEGER NOT NULL,               -- the name was absent before
    tombstone INTEGER NOT NULL,             -- the write was a deletion
    modified_at INTEGER NOT NULL,           -- milliseconds since the Unix epoch
    expires_at INTEGER NOT NULL,            -- likewise; 0: never
    PRIMARY KEY (partition, version)
) STRICT, WITHOUT ROWID;
