//! What the object store has, as far as this node knows: which rows wait for their upload, and where the values of the
//! others are.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use cairn_api_spec::{Version, peer};
use cairn_object_tier::{Place, SegmentName};
use sqlx::{Connection, Row as _, sqlite::SqliteRow};

use super::{Disk, Row, maintenance::VACUUM_PAGES, notes};
use crate::error::NodeError;

/// Rows whose lengths are added up to see whether a segment is full.
const WEIGHED_ROWS: u32 = 8_192;

/// A row that the object store has.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// See `EntryName::as_bytes`.
    pub name: Bytes,
    /// The version.
    pub version: Version,
    /// Where its value is; `None` for a deletion.
    pub place: Option<Place>,
}

/// A row whose current value is in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// See `EntryName::as_bytes`.
    pub name: Bytes,
    /// The version.
    pub version: Version,
    /// The value's first byte in the segment.
    pub offset: u64,
}

/// What waits for its upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Bytes of the oldest values, as far as they were looked at.
    pub bytes: u64,
    /// When the oldest row was written, in milliseconds since the Unix epoch.
    pub oldest: Option<u64>,
}

impl Disk {
    /// The names of those partitions that the object store has yet to hear of, the oldest first.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn dirty(&self, partitions: &[u32], limit: u32) -> Result<Vec<Bytes>, NodeError> {
        let names: Vec<Vec<u8>> = sqlx::query_scalar(
            // The plus keeps SQLite from the index of partitions, by which it would read and sort all rows there are.
            "SELECT name FROM entries WHERE dirty = 1 AND +partition IN (SELECT value FROM json_each(?)) ORDER BY modified_at LIMIT ?",
        )
        .bind(super::json_list(partitions))
        .bind(limit)
        .fetch_all(&self.scans)
        .await?;
        Ok(names.into_iter().map(Bytes::from).collect())
    }

    /// How much of those partitions the object store has yet to hear of.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn waiting(&self, partitions: &[u32]) -> Result<Waiting, NodeError> {
        let row = sqlx::query(
            "SELECT coalesce(sum(size), 0), min(modified_at) FROM (SELECT size, modified_at FROM entries \
             WHERE dirty = 1 AND +partition IN (SELECT value FROM json_each(?)) ORDER BY modified_at LIMIT ?)",
        )
        .bind(super::json_list(partitions))
        .bind(WEIGHED_ROWS)
        .fetch_one(&self.scans)
        .await?;
        let (bytes, oldest): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Waiting { bytes: bytes.cast_unsigned(), oldest: oldest.map(i64::cast_unsigned) })
    }

    /// The lowest version of a partition that the object store has yet to hear of.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn oldest_waiting(&self, partition: u32) -> Result<Option<Version>, NodeError> {
        let version: Option<i64> =
            sqlx::query_scalar("SELECT min(version) FROM entries WHERE dirty = 1 AND partition = ?")
                .bind(partition)
                .fetch_one(&self.scans)
                .await?;
        Ok(version.map(|version| Version(version.cast_unsigned())))
    }

    /// Where a row's value is in the object store.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn place(&self, row: &Row) -> Result<Option<Place>, NodeError> {
        if row.object_version != row.metadata.version || row.tombstone {
            return Ok(None);
        }
        let found = sqlx::query(
            "SELECT o.name, p.offset FROM entries e JOIN places p ON p.id = e.id JOIN objects o ON o.id = p.object \
             WHERE e.name = ? AND p.version = ?",
        )
        .bind(&row.name[..])
        .bind(row.metadata.version.0.cast_signed())
        .fetch_optional(&self.points)
        .await?;
        match found {
            Some(found) => Ok(Some(read(&found, 0)?)),
            None => Ok(Some(Place::Versioned)),
        }
    }

    /// The rows of a partition without values, with the places of those that do not wait, from `cursor` (0 at first) on,
    /// and the cursor for the next page (0 at the end).
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn scan_places(&self, partition: u32, cursor: i64, rows: usize) -> Result<(Vec<Row>, i64), NodeError> {
        let (mut rows, next) = self.scan_heads(partition, cursor, rows).await?;
        let end = if next == 0 { i64::MAX } else { next };
        let mut places = self.places(partition, cursor, end).await?;
        for row in rows.iter_mut().filter(|row| !row.tombstone && row.object_version == row.metadata.version) {
            row.place = Some(places.remove(&row.name).map_or(Place::Versioned, |(_, place)| place));
        }
        Ok((rows, next))
    }

    /// How many bytes of values each segment has that are current in those partitions, from `cursor` (0 at first) on, and
    /// the cursor for the next page (0 at the end).
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn live_in_segments(
        &self,
        partitions: &[u32],
        cursor: i64,
        limit: u32,
    ) -> Result<(Vec<(Arc<SegmentName>, u64)>, i64), NodeError> {
        let found = sqlx::query(
            "SELECT o.id, o.name, (SELECT coalesce(sum(e.size), 0) FROM places p \
             JOIN entries e ON e.id = p.id AND e.version = p.version WHERE p.object = o.id AND e.object_version = e.version \
             AND e.dirty = 0 AND e.tombstone = 0 AND e.partition IN (SELECT value FROM json_each(?))) \
             FROM objects o WHERE o.id > ? ORDER BY o.id LIMIT ?",
        )
        .bind(super::json_list(partitions))
        .bind(cursor)
        .bind(limit)
        .fetch_all(&self.scans)
        .await?;
        let mut segments = Vec::with_capacity(found.len());
        for row in &found {
            // Values that have objects of their own stand there, too.
            if let Ok(name) = row.try_get::<&str, _>(1)?.parse::<SegmentName>() {
                segments.push((Arc::new(name), row.try_get::<i64, _>(2)?.cast_unsigned()));
            }
        }
        let last = found.last().filter(|_| found.len() == limit as usize);
        Ok((segments, last.map_or(Ok(0), |row| row.try_get(0))?))
    }

    /// The rows of those partitions whose current values a segment has.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn packed_in(&self, segment: &SegmentName, partitions: &[u32]) -> Result<Vec<Packed>, NodeError> {
        let found = sqlx::query(
            "SELECT e.name, e.version, p.offset FROM objects o JOIN places p ON p.object = o.id \
             JOIN entries e ON e.id = p.id AND e.version = p.version WHERE o.name = ? AND e.object_version = e.version \
             AND e.dirty = 0 AND e.tombstone = 0 AND e.partition IN (SELECT value FROM json_each(?))",
        )
        .bind(segment.to_string())
        .bind(super::json_list(partitions))
        .fetch_all(&self.scans)
        .await?;
        let number = |row: &SqliteRow, index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
        let packed = |row: &SqliteRow| {
            let name = Bytes::copy_from_slice(row.try_get(0)?);
            Ok(Packed { name, version: Version(number(row, 1)?), offset: number(row, 2)? })
        };
        found.iter().map(packed).collect()
    }

    /// Forgets objects that hold no row's value any more.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn forget_objects(&self) -> Result<(), NodeError> {
        const FORGET: &str = "DELETE FROM objects WHERE id IN (SELECT o.id FROM objects o \
             WHERE NOT EXISTS (SELECT 1 FROM places p WHERE p.object = o.id) LIMIT 1000)";
        self.with_writer(|connection| {
            Box::pin(async move { sqlx::query(FORGET).execute(connection).await.map(|_| ()) })
        })
        .await
    }

    /// The places of a partition's rows behind `after` up to `end`.
    pub(super) async fn places(
        &self,
        partition: u32,
        after: i64,
        end: i64,
    ) -> Result<HashMap<Bytes, (Version, Place)>, NodeError> {
        let found = sqlx::query(
            "SELECT e.name, p.version, o.name, p.offset FROM entries e JOIN places p ON p.id = e.id AND p.version = e.version \
             JOIN objects o ON o.id = p.object WHERE e.partition = ? AND e.id > ? AND e.id <= ?",
        )
        .bind(partition)
        .bind(after)
        .bind(end)
        .fetch_all(&self.scans)
        .await?;
        let of = |row: &SqliteRow| {
            let version = Version(row.try_get::<i64, _>(1)?.cast_unsigned());
            Ok((Bytes::copy_from_slice(row.try_get(0)?), (version, read(row, 2)?)))
        };
        found.iter().map(of).collect()
    }

    /// Notes what the object store has, by exact versions: a key that has moved on still waits.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn mark_uploaded(&self, marks: Vec<Mark>) -> Result<(), NodeError> {
        if marks.is_empty() {
            return Ok(());
        }
        self.with_writer(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                notes::note(&mut transaction, &marks, true).await?;
                transaction.commit().await
            })
        })
        .await
    }

    /// Takes rows that cannot be uploaded out of those that wait. Their keys wait again when they are written.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn set_aside(&self, rows: Vec<(Bytes, Version)>) -> Result<(), NodeError> {
        self.update_all("UPDATE entries SET dirty = 2 WHERE name = ? AND version = ?", rows).await
    }

    /// Makes rows wait for their upload again, unless they have moved on.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn mark_waiting(&self, rows: Vec<(Bytes, Version)>) -> Result<(), NodeError> {
        const WAIT: &str =
            "UPDATE entries SET dirty = 1, object_version = 0 WHERE name = ? AND version = ? AND value IS NOT NULL";
        self.update_all(WAIT, rows).await
    }

    async fn update_all(&self, statement: &'static str, rows: Vec<(Bytes, Version)>) -> Result<(), NodeError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.with_writer(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                for (name, version) in &rows {
                    sqlx::query(statement)
                        .bind(&name[..])
                        .bind(version.0.cast_signed())
                        .execute(&mut *transaction)
                        .await?;
                }
                transaction.commit().await
            })
        })
        .await
    }

    /// Drops values that the object store has; the rows stay as references. Returns how many went.
    ///
    /// A row is removed and stored anew without its value: one that only shrinks would keep its page to itself.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn offload(&self, rows: Vec<(i64, Version)>) -> Result<u64, NodeError> {
        let chosen: Vec<_> = rows.iter().map(|(id, version)| format!("[{id},{version}]")).collect();
        let chosen = format!("[{}]", chosen.join(","));
        self.with_writer(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                for statement in SET_ASIDE {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                let taken = sqlx::query(TAKE).bind(chosen).execute(&mut *transaction).await?.rows_affected();
                for statement in PUT_BACK {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                transaction.commit().await?;
                sqlx::query(VACUUM_PAGES).execute(connection).await?;
                Ok(taken)
            })
        })
        .await
    }
}

const SET_ASIDE: [&str; 4] = [
    "CREATE TEMP TABLE IF NOT EXISTS kept AS SELECT * FROM entries LIMIT 0",
    "CREATE TEMP TABLE IF NOT EXISTS kept_places AS SELECT * FROM places LIMIT 0",
    "DELETE FROM kept",
    "DELETE FROM kept_places",
];
const TAKE: &str = "INSERT INTO kept SELECT e.id, name, partition, version, modified_at, expires_at, size, content_type, \
     checksum, tombstone, dirty, object_version, NULL FROM json_each(?) j JOIN entries e ON e.id = j.value ->> 0 \
     WHERE version = j.value ->> 1 AND dirty = 0 AND object_version = version AND e.value IS NOT NULL";
const PUT_BACK: [&str; 4] = [
    "INSERT INTO kept_places SELECT * FROM places WHERE id IN (SELECT id FROM kept)",
    "DELETE FROM entries WHERE id IN (SELECT id FROM kept)",
    "INSERT INTO entries SELECT * FROM kept ORDER BY id",
    "INSERT INTO places SELECT * FROM kept_places ORDER BY id",
];

fn read(row: &SqliteRow, first: usize) -> Result<Place, sqlx::Error> {
    let (object, offset): (String, i64) = (row.try_get(first)?, row.try_get(first + 1)?);
    from_peer(&peer::Place { object, offset: offset.cast_unsigned() })
        .ok_or_else(|| sqlx::Error::Decode("a place that is none".into()))
}

/// A place as it is sent; `None` for one that follows from the row.
pub fn to_peer(place: &Place) -> Option<peer::Place> {
    match place {
        Place::Packed { segment, offset } => Some(peer::Place { object: segment.to_string(), offset: *offset }),
        Place::Object(name) => Some(peer::Place { object: name.to_string(), offset: 0 }),
        Place::Versioned => None,
    }
}

/// The place that was sent, if it can be read.
pub fn from_peer(place: &peer::Place) -> Option<Place> {
    let peer::Place { object, offset } = place;
    let packed = object.parse().map(|segment| Place::Packed { segment: Arc::new(segment), offset: *offset });
    packed.or_else(|_| object.parse().map(|name| Place::Object(Arc::new(name)))).ok()
}
