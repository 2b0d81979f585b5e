-- The sum that an increment was answered with, for the same one sent again; NULL for other writes.
ALTER TABLE idempotency ADD COLUMN counted INTEGER;
