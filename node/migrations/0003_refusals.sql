-- A write under an idempotency key that was refused is refused again: 0 the write was done, 1 its condition did not hold,
-- 2 the key to be removed was not there. The version is the one that the refusal named.
ALTER TABLE idempotency ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE idempotency ADD COLUMN refused_version INTEGER NOT NULL DEFAULT 0;
