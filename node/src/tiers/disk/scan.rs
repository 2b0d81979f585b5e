//! Reads over many rows: listings, transfers, uploads and sweeps, each by pages.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_api_spec::{Version, operation::ListQuery};
use sqlx::Row as _;

use super::{Disk, Row};
use crate::error::NodeError;

/// What the file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys that are not deleted.
    pub entries: u64,
    /// Keys whose value is here.
    pub disk_entries: u64,
    /// Bytes of those values.
    pub disk_bytes: u64,
    /// Keys whose current value the object store has.
    pub object_entries: u64,
    /// Bytes of those values.
    pub object_bytes: u64,
}

/// A row whose time has come.
#[derive(Clone, Debug)]
pub struct ExpiredRow {
    /// Its place in the file.
    pub id: i64,
    /// Its partition.
    pub partition: u32,
    /// See `EntryName::as_bytes`.
    pub name: Bytes,
    /// Its version.
    pub version: Version,
    /// Its time, in milliseconds since the Unix epoch.
    pub expires_at: u64,
}

macro_rules! select {
    ($with:literal, $rest:literal) => {
        concat!(
            "SELECT name, partition, version, modified_at, expires_at, size, content_type, checksum, tombstone, dirty, object_version",
            $with,
            " FROM entries ",
            $rest
        )
    };
}

impl Disk {
    /// Whether the value of a row is here, and not in the object store alone. It is not read.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn holds_value(&self, name: &[u8]) -> Result<bool, NodeError> {
        let held = sqlx::query_scalar("SELECT value IS NOT NULL FROM entries WHERE name = ?");
        Ok(held.bind(name).fetch_optional(&self.points).await?.unwrap_or(false))
    }

    /// Live rows of a range, without values, in the order of their names.
    pub async fn list(&self, query: &ListQuery, now: u64, limit: usize) -> Result<Vec<Row>, NodeError> {
        // Two statements, since SQLite ends a search by an index only where the end is no question.
        let found = if query.end.is_empty() {
            sqlx::query(select!(
                "",
                "WHERE name >= ? AND tombstone = 0 AND (expires_at IS NULL OR expires_at > ?) ORDER BY name LIMIT ?"
            ))
            .bind(&query.start[..])
        } else {
            sqlx::query(select!(
                "",
                "WHERE name >= ? AND name < ? AND tombstone = 0 AND (expires_at IS NULL OR expires_at > ?) ORDER BY name LIMIT ?"
            ))
            .bind(&query.start[..])
            .bind(&query.end[..])
        };
        let rows =
            found.bind(now.cast_signed()).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&self.scans).await?;
        rows.iter().map(|row| Row::read(row).map_err(Into::into)).collect()
    }

    /// Rows of a partition with values, from `cursor` (0 at first) on, and the cursor for the next page (0 at the end).
    /// A page ends after `max_bytes` of values, or `max_rows`.
    pub async fn scan_partition(
        &self,
        partition: u32,
        cursor: i64,
        max_rows: usize,
        max_bytes: u64,
    ) -> Result<(Vec<Row>, i64), NodeError> {
        let heads = sqlx::query("SELECT id, size FROM entries WHERE partition = ? AND id > ? ORDER BY id LIMIT ?")
            .bind(partition)
            .bind(cursor)
            .bind(i64::try_from(max_rows).unwrap_or(i64::MAX))
            .fetch_all(&self.scans)
            .await?;
        let mut bytes = 0;
        let mut last = 0;
        let mut taken = 0;
        for head in &heads {
            bytes += head.try_get::<i64, _>(1)?.cast_unsigned();
            if taken > 0 && bytes > max_bytes {
                break;
            }
            taken += 1;
            last = head.try_get(0)?;
        }
        if taken == 0 {
            return Ok((Vec::new(), 0));
        }
        let found = sqlx::query(select!(", value", "WHERE partition = ? AND id > ? AND id <= ? ORDER BY id"))
            .bind(partition)
            .bind(cursor)
            .bind(last)
            .fetch_all(&self.scans)
            .await?;
        let mut rows = found.iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
        let mut places = self.places(partition, cursor, last).await?;
        rows.iter_mut()
            .for_each(|row| row.place = places.remove(&row.name).filter(|_| !row.dirty).map(|(_, place)| place));
        let more = taken < heads.len() || heads.len() == max_rows;
        Ok((rows, if more { last } else { 0 }))
    }

    /// The same without values.
    pub async fn scan_heads(&self, partition: u32, cursor: i64, max_rows: usize) -> Result<(Vec<Row>, i64), NodeError> {
        let found = sqlx::query(select!(", NULL, id", "WHERE partition = ? AND id > ? ORDER BY id LIMIT ?"))
            .bind(partition)
            .bind(cursor)
            .bind(i64::try_from(max_rows).unwrap_or(i64::MAX))
            .fetch_all(&self.scans)
            .await?;
        let rows = found.iter().map(Row::read).collect::<Result<_, _>>()?;
        let last = found.last().filter(|_| found.len() == max_rows);
        Ok((rows, last.map_or(Ok(0), |row| row.try_get(12))?))
    }

    /// The version of every row of a partition.
    pub async fn versions(&self, partition: u32) -> Result<HashMap<Bytes, Version>, NodeError> {
        let rows = sqlx::query("SELECT name, version FROM entries WHERE partition = ?")
            .bind(partition)
            .fetch_all(&self.scans)
            .await?;
        rows.iter()
            .map(|row| {
                let version = row.try_get::<i64, _>(1)?.cast_unsigned();
                Ok((Bytes::copy_from_slice(row.try_get(0)?), Version(version)))
            })
            .collect()
    }

    /// Bytes of the values of a partition that are here.
    pub async fn partition_bytes(&self, partition: u32) -> Result<u64, NodeError> {
        let bytes: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(size), 0) FROM entries WHERE partition = ? AND value IS NOT NULL")
                .bind(partition)
                .fetch_one(&self.scans)
                .await?;
        Ok(bytes.cast_unsigned())
    }

    /// Tombstones that the object store need not hear of any more, from the position `hand` on: id, partition and version.
    pub async fn tombstones_from(&self, hand: i64, limit: u32) -> Result<Vec<(i64, u32, Version)>, NodeError> {
        let rows = sqlx::query(
            "SELECT id, partition, version FROM entries WHERE tombstone = 1 AND dirty = 0 AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(hand)
        .bind(limit)
        .fetch_all(&self.scans)
        .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, Version(row.try_get::<i64, _>(2)?.cast_unsigned()))))
            .collect()
    }

    /// How many rows of those partitions the object store has yet to hear of, and when the oldest was written.
    pub async fn backlog(&self, partitions: &[u32]) -> Result<(u64, Option<u64>), NodeError> {
        let row = sqlx::query(
            "SELECT count(*), min(modified_at) FROM entries WHERE dirty = 1 AND +partition IN (SELECT value FROM json_each(?))",
        )
        .bind(super::json_list(partitions))
        .fetch_one(&self.scans)
        .await?;
        let oldest: Option<i64> = row.try_get(1)?;
        Ok((row.try_get::<i64, _>(0)?.cast_unsigned(), oldest.map(i64::cast_unsigned)))
    }

    /// Rows whose time has come, in the order of their times, from the row behind `after` (time and id) on.
    pub async fn expired(&self, now: u64, after: (u64, i64), limit: u32) -> Result<Vec<ExpiredRow>, NodeError> {
        let rows = sqlx::query(
            "SELECT id, partition, name, version, expires_at FROM entries WHERE expires_at <= ? AND tombstone = 0 \
             AND expires_at IS NOT NULL AND (expires_at, id) > (?, ?) ORDER BY expires_at, id LIMIT ?",
        )
        .bind(now.cast_signed())
        .bind(after.0.cast_signed())
        .bind(after.1)
        .bind(limit)
        .fetch_all(&self.scans)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ExpiredRow {
                    id: row.try_get(0)?,
                    partition: row.try_get(1)?,
                    name: Bytes::copy_from_slice(row.try_get(2)?),
                    version: Version(row.try_get::<i64, _>(3)?.cast_unsigned()),
                    expires_at: row.try_get::<i64, _>(4)?.cast_unsigned(),
                })
            })
            .collect()
    }

    /// Rows with a value here that nothing but the object store need hold (with `uploaded`), or any (without), from
    /// the position `hand` on: id, name, version, and the bytes of the value.
    pub async fn values_from(
        &self,
        hand: i64,
        uploaded: bool,
        limit: u32,
    ) -> Result<Vec<(i64, Bytes, Version, u64)>, NodeError> {
        let rows = sqlx::query(
            "SELECT id, name, version, size FROM entries WHERE id > ? AND value IS NOT NULL AND (? = 0 OR (dirty = 0 AND object_version = version)) ORDER BY id LIMIT ?",
        )
        .bind(hand)
        .bind(uploaded)
        .bind(limit)
        .fetch_all(&self.scans)
        .await?;
        rows.iter()
            .map(|row| {
                let name = Bytes::copy_from_slice(row.try_get(1)?);
                let number = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
                Ok((row.try_get(0)?, name, Version(number(2)?), number(3)?))
            })
            .collect()
    }

    /// What the file holds of those partitions. Reads every row's head: for statistics, not for decisions.
    pub async fn totals(&self, partitions: &[u32]) -> Result<Totals, NodeError> {
        let row = sqlx::query(
            "SELECT count(*), count(value), coalesce(sum(size) FILTER (WHERE value IS NOT NULL), 0), \
             count(*) FILTER (WHERE object_version = version), coalesce(sum(size) FILTER (WHERE object_version = version), 0) \
             FROM entries WHERE tombstone = 0 AND partition IN (SELECT value FROM json_each(?))",
        )
        .bind(super::json_list(partitions))
        .fetch_one(&self.scans)
        .await?;
        let number = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
        Ok(Totals {
            entries: number(0)?,
            disk_entries: number(1)?,
            disk_bytes: number(2)?,
            object_entries: number(3)?,
            object_bytes: number(4)?,
        })
    }

    /// Bytes of the file that are in use.
    pub async fn used_bytes(&self) -> Result<u64, NodeError> {
        let row = sqlx::query(
            "SELECT (c.page_count - f.freelist_count) * s.page_size FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s",
        )
        .fetch_one(&self.scans)
        .await?;
        Ok(row.try_get::<i64, _>(0)?.cast_unsigned())
    }
}
