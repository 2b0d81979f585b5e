//! Idempotency keys, and what became of the first write with each. They are written by the transaction that writes the
//! row, on every replica, and kept for ten minutes.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{Version, operation::IdempotencyKey, peer::FirstOutcome};
use cairn_engine::{Change, Idempotency};
use sqlx::{
    Row as _, Sqlite, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{Disk, queue::Write, seen::Seen, writer::MAX_STATEMENT_ROWS};
use crate::{clock, error::NodeError};

/// How long a key is kept.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);
/// Keys read at a time when the file is opened.
const PAGE: u32 = 5_000;
/// Keys removed by one statement.
const REMOVE_KEYS: u32 = 2_000;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT key, name, version, created, tombstone, modified_at, expires_at, refused, refused_version, counted FROM idempotency WHERE partition = ? ",
            $rest
        )
    };
}

/// Before when a key must have been written to be forgotten now.
fn horizon() -> i64 {
    let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
    clock::wall().saturating_sub(lifetime).cast_signed()
}

impl Disk {
    /// Whether there may have been a write with a key less than ten minutes ago. "No" is always true.
    pub fn may_recall(&self, partition: u32, key: &IdempotencyKey) -> bool {
        self.seen.may_hold(partition, key.as_str())
    }

    /// What became of the first write with a key, if that was less than ten minutes ago.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn first_outcome(&self, partition: u32, key: &IdempotencyKey) -> Result<Option<FirstOutcome>, NodeError> {
        // The newest first: whoever sends a write again mostly does so soon.
        let found = sqlx::query(select!("AND key = ? AND modified_at >= ? ORDER BY version DESC LIMIT 1"))
            .bind(partition)
            .bind(key.as_str())
            .bind(horizon())
            .fetch_optional(&self.points)
            .await?;
        Ok(found.as_ref().map(read).transpose()?)
    }

    /// A page of a partition's keys: of those with a higher version, the lowest.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn idempotency_keys(
        &self,
        partition: u32,
        after: Version,
        limit: usize,
    ) -> Result<Vec<FirstOutcome>, NodeError> {
        let rows = sqlx::query(select!("AND version > ? ORDER BY version LIMIT ?"))
            .bind(partition)
            .bind(after.0.cast_signed())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.scans)
            .await?;
        rows.iter().map(|row| read(row).map_err(Into::into)).collect()
    }

    /// Stores keys that came from a primary.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn ingest_keys(&self, partition: u32, keys: Vec<FirstOutcome>) -> Result<(), NodeError> {
        keys.iter().for_each(|first| self.seen.note(partition, &first.key));
        self.with_writer(move |connection| {
            Box::pin(async move {
                let records: Vec<_> = keys.iter().map(|first| Record::of_peer(first, partition)).collect();
                insert(connection, &records).await
            })
        })
        .await
    }

    /// Forgets a partition's keys.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn drop_keys(&self, partition: u32) -> Result<(), NodeError> {
        while self.delete_keys(partition, i64::MAX).await? {}
        Ok(())
    }

    /// Forgets keys of a partition that are older than ten minutes. Returns whether there may be more.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn forget_keys(&self, partition: u32) -> Result<bool, NodeError> {
        self.delete_keys(partition, horizon()).await
    }

    async fn delete_keys(&self, partition: u32, before: i64) -> Result<bool, NodeError> {
        self.with_writer(move |connection| {
            Box::pin(async move {
                // A refusal has no row that keeps its version.
                sqlx::query(
                    "UPDATE partitions SET last_version = max(last_version, coalesce((SELECT max(version) FROM idempotency \
                     WHERE partition = ?1), 0)) WHERE id = ?1",
                )
                .bind(partition)
                .execute(&mut *connection)
                .await?;
                let done = sqlx::query(
                    "DELETE FROM idempotency WHERE partition = ?1 AND modified_at < ?2 AND version IN \
                     (SELECT version FROM idempotency WHERE partition = ?1 ORDER BY version LIMIT ?3)",
                )
                .bind(partition)
                .bind(before)
                .bind(REMOVE_KEYS)
                .execute(connection)
                .await?;
                Ok(done.rows_affected() == u64::from(REMOVE_KEYS))
            })
        })
        .await
    }
}

fn read(row: &SqliteRow) -> Result<FirstOutcome, sqlx::Error> {
    let unsigned = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
    Ok(FirstOutcome {
        key: row.try_get(0)?,
        name: Bytes::copy_from_slice(row.try_get(1)?),
        version: unsigned(2)?,
        created: row.try_get(3)?,
        tombstone: row.try_get(4)?,
        modified_at: unsigned(5)?,
        expires_at: unsigned(6)?,
        refused: row.try_get(7)?,
        refused_version: unsigned(8)?,
        counted: row.try_get(9)?,
    })
}

/// Notes all keys of a file that was just opened.
pub(super) async fn note_all(scans: SqlitePool, seen: Arc<Seen>) {
    let mut last = Some((-1, 0, String::new()));
    while let Some((partition, version, _)) = last {
        let page: Result<Vec<(i64, i64, String)>, _> = sqlx::query_as(
            "SELECT partition, version, key FROM idempotency WHERE (partition, version) > (?, ?) \
             ORDER BY partition, version LIMIT ?",
        )
        .bind(partition)
        .bind(version)
        .bind(PAGE)
        .fetch_all(&scans)
        .await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "idempotency keys cannot be read: every one is looked for on the disk");
                return;
            }
        };
        for (partition, _, key) in &page {
            seen.note(u32::try_from(*partition).unwrap_or(u32::MAX), key);
        }
        last = page.into_iter().next_back();
    }
    seen.complete();
}

/// The parts of a stored key, borrowed from wherever they are.
pub(super) struct Record<'a> {
    partition: u32,
    key: &'a str,
    name: &'a [u8],
    version: u64,
    created: bool,
    tombstone: bool,
    modified_at: u64,
    expires_at: u64,
    refused: i32,
    refused_version: u64,
    counted: Option<i64>,
}

impl<'a> Record<'a> {
    /// `None` for a write without a key.
    pub(super) fn of_write(write: &'a Write) -> Option<Self> {
        let Idempotency { key, created, counted } = write.idempotency.as_ref()?;
        let (tombstone, expires_at, (refused, refused_version)) = match &write.change {
            Change::Put(entry) => (false, entry.metadata().expires_at.unwrap_or(0), (0, 0)),
            Change::Delete { .. } => (true, 0, (0, 0)),
            Change::Note { refused, deletes, .. } => (*deletes, 0, refused.to_peer()),
        };
        Some(Self {
            partition: write.partition,
            key: key.as_str(),
            name: write.change.name(),
            version: write.change.version().0,
            created: *created,
            tombstone,
            modified_at: write.change.at(),
            expires_at,
            refused,
            refused_version,
            counted: *counted,
        })
    }

    fn of_peer(first: &'a FirstOutcome, partition: u32) -> Self {
        Self {
            partition,
            key: &first.key,
            name: &first.name,
            version: first.version,
            created: first.created,
            tombstone: first.tombstone,
            modified_at: first.modified_at,
            expires_at: first.expires_at,
            refused: first.refused,
            refused_version: first.refused_version,
            counted: first.counted,
        }
    }

    fn bind<'q>(&'q self, query: Query<'q, Sqlite, SqliteArguments>) -> Query<'q, Sqlite, SqliteArguments> {
        query
            .bind(self.partition)
            .bind(self.version.cast_signed())
            .bind(self.key)
            .bind(self.name)
            .bind(self.created)
            .bind(self.tombstone)
            .bind(self.modified_at.cast_signed())
            .bind(self.expires_at.cast_signed())
            .bind(self.refused)
            .bind(self.refused_version.cast_signed())
            .bind(self.counted)
    }
}

/// The statement for each number of keys, from 1. A version that is there is the same write.
static INSERTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let insert = |rows| {
        let rows = vec!["(?,?,?,?,?,?,?,?,?,?,?)"; rows].join(",");
        format!(
            "INSERT INTO idempotency (partition, version, key, name, created, tombstone, modified_at, expires_at, refused, refused_version, \
             counted) \
             VALUES {rows} ON CONFLICT DO NOTHING"
        )
    };
    (1..=MAX_STATEMENT_ROWS).map(insert).collect()
});

/// Stores keys.
pub(super) async fn insert(connection: &mut SqliteConnection, records: &[Record<'_>]) -> Result<(), sqlx::Error> {
    for chunk in records.chunks(MAX_STATEMENT_ROWS) {
        let query = sqlx::query(INSERTS[chunk.len() - 1].as_str());
        chunk.iter().fold(query, |query, record| record.bind(query)).execute(&mut *connection).await?;
    }
    Ok(())
}
