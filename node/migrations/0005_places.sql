-- Where the object store has the values of rows: which object, and from which byte on. A table of its own, since most rows
-- gain a place long after they are written, and a row that grows moves.
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE               -- without the prefix: segments/... or values/...
) STRICT;

CREATE TABLE places (
    id INTEGER PRIMARY KEY,                 -- that of the row in entries
    version INTEGER NOT NULL,               -- of the value; the row may have moved on
    object INTEGER NOT NULL,
    offset INTEGER NOT NULL
) STRICT;

CREATE INDEX places_by_object ON places (object);

CREATE TRIGGER places_of_removed_entries AFTER DELETE ON entries BEGIN
    DELETE FROM places WHERE id = OLD.id;
END;
