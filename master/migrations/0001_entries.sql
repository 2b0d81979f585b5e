-- Key-value pairs with the revision of the transaction that last changed them.
CREATE TABLE entries (
    key      TEXT PRIMARY KEY NOT NULL,
    value    BLOB NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: the number of transactions so far. It never goes down, so deleted keys leave their mark.
CREATE TABLE store_revision (
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO store_revision (id, revision) VALUES (0, 0);
