//! Changes that are no client's write. They go through the writer's queue, so they keep their place among the writes.

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_engine::TierError;
use futures_util::future::BoxFuture;
use sqlx::{Connection, Row as _, SqliteConnection};
use tokio::sync::oneshot;

use super::{
    Disk, Row,
    queue::{Job, Task},
    writer,
};
use crate::{clock, error::NodeError};

/// Rows of a dropped partition removed by one transaction.
const REMOVE_ROWS: u32 = 2_000;
/// Free pages given back to the file system at a time.
pub(super) const VACUUM_PAGES: &str = "PRAGMA incremental_vacuum(256)";

/// What is known of a partition whose rows are authoritative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldPartition {
    /// See `cairn_api_spec::cluster::Partition::generation`.
    pub generation: u64,
    /// The highest version that it has given.
    pub last_version: Version,
}

impl Disk {
    pub(super) async fn with_writer<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T, NodeError> {
        self.queue_task(work, false).await
    }

    /// The same, and flushes the medium: what `work` writes, and everything queued before, survives a power cut.
    async fn flushed<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T, NodeError> {
        self.queue_task(work, true).await
    }

    async fn queue_task<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
        flush: bool,
    ) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |connection| {
            Box::pin(async move {
                let done = work(connection).await;
                let good = done.is_ok();
                // Whoever asked may be gone; the work was worth doing all the same.
                let _ = reply.send(done);
                good
            })
        });
        self.queue.push(Job::Task(task, flush))?;
        answer.await.map_err(|_| TierError::ShuttingDown)?.map_err(Into::into)
    }

    /// Waits until everything queued before is on the disk.
    pub async fn barrier(&self) -> Result<(), NodeError> {
        self.with_writer(|_| Box::pin(async { Ok(()) })).await
    }

    /// Reads a value that belongs to this data directory, or stores the one given, flushed, when there is none.
    pub async fn identity(&self, name: &'static str, default: Option<String>) -> Result<Option<String>, NodeError> {
        self.flushed(move |connection| {
            Box::pin(async move {
                if let Some(value) = default {
                    sqlx::query("INSERT INTO identity (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
                        .bind(name)
                        .bind(value)
                        .execute(&mut *connection)
                        .await?;
                }
                sqlx::query_scalar("SELECT value FROM identity WHERE name = ?")
                    .bind(name)
                    .fetch_optional(connection)
                    .await
            })
        })
        .await
    }

    /// Counts one more start on these data. The number is flushed: it must never be given twice. It is the time where
    /// that is higher, so that a node that has lost its data, or has an old copy of them, does not count again.
    pub async fn begin_session(&self) -> Result<u64, NodeError> {
        let now = clock::wall().cast_signed();
        let session: i64 = self
            .flushed(move |connection| {
                Box::pin(async move {
                    sqlx::query_scalar(
                        "INSERT INTO identity (name, value) VALUES ('session', CAST(?1 AS TEXT)) ON CONFLICT (name) DO \
                         UPDATE SET value = CAST(max(CAST(value AS INTEGER) + 1, ?1) AS TEXT) RETURNING CAST(value AS INTEGER)",
                    )
                    .bind(now)
                    .fetch_one(connection)
                    .await
                })
            })
            .await?;
        Ok(session.cast_unsigned())
    }

    /// The partitions whose rows are authoritative.
    pub async fn partitions(&self) -> Result<Vec<(u32, HeldPartition)>, NodeError> {
        self.with_writer(|connection| {
            Box::pin(async move {
                let rows = sqlx::query(
                    "SELECT p.id, p.generation, max(p.last_version, \
                     coalesce((SELECT max(version) FROM entries WHERE partition = p.id), 0), \
                     coalesce((SELECT max(version) FROM idempotency WHERE partition = p.id), 0)) FROM partitions p",
                )
                .fetch_all(connection)
                .await?;
                rows.iter()
                    .map(|row| {
                        let unsigned = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
                        let held = HeldPartition { generation: unsigned(1)?, last_version: Version(unsigned(2)?) };
                        Ok((row.try_get(0)?, held))
                    })
                    .collect()
            })
        })
        .await
    }

    /// The partitions that have rows, authoritative or not.
    pub async fn partitions_with_rows(&self) -> Result<Vec<u32>, NodeError> {
        // By seeks: a partition has many rows.
        let found = sqlx::query_scalar(
            "WITH RECURSIVE found(id) AS (SELECT min(partition) FROM entries UNION ALL \
             SELECT (SELECT min(partition) FROM entries WHERE partition > found.id) FROM found WHERE found.id IS NOT NULL) \
             SELECT id FROM found WHERE id IS NOT NULL",
        );
        Ok(found.fetch_all(&self.scans).await?)
    }

    /// Declares a partition's rows authoritative. They are flushed with it: among them may be writes that were answered
    /// as flushed on every copy.
    pub async fn adopt_partition(&self, partition: u32, held: HeldPartition) -> Result<(), NodeError> {
        self.flushed(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO partitions (id, generation, last_version) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE \
                     SET generation = excluded.generation, last_version = max(last_version, excluded.last_version)",
                )
                .bind(partition)
                .bind(held.generation.cast_signed())
                .bind(held.last_version.0.cast_signed())
                .execute(connection)
                .await
                .map(|_| ())
            })
        })
        .await
    }

    /// Declares a partition's rows no complete copy any more.
    pub async fn disown_partition(&self, partition: u32) -> Result<(), NodeError> {
        self.with_writer(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM partitions WHERE id = ?").bind(partition).execute(connection).await.map(|_| ())
            })
        })
        .await
    }

    /// Removes rows by name, unless they have another version by now.
    pub async fn remove_names(&self, names: Vec<(Bytes, Version)>) -> Result<(), NodeError> {
        if names.is_empty() {
            return Ok(());
        }
        self.with_writer(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                for (name, version) in names {
                    sqlx::query("DELETE FROM entries WHERE name = ? AND version = ?")
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

    /// Forgets a partition: from the first moment its rows are not authoritative, then they go, by and by.
    pub async fn drop_partition(&self, partition: u32) -> Result<(), NodeError> {
        loop {
            let removed = self
                .with_writer(move |connection| {
                    Box::pin(async move {
                        let mut transaction = connection.begin().await?;
                        sqlx::query("DELETE FROM partitions WHERE id = ?")
                            .bind(partition)
                            .execute(&mut *transaction)
                            .await?;
                        let removed = sqlx::query(
                            "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE partition = ? LIMIT ?)",
                        )
                        .bind(partition)
                        .bind(REMOVE_ROWS)
                        .execute(&mut *transaction)
                        .await?
                        .rows_affected();
                        transaction.commit().await?;
                        Ok(removed)
                    })
                })
                .await?;
            if removed < u64::from(REMOVE_ROWS) {
                return self.drop_keys(partition).await;
            }
        }
    }

    /// Stores rows from a peer or the object store, unless newer ones are there.
    pub async fn ingest(&self, rows: Vec<Row>) -> Result<(), NodeError> {
        self.with_writer(move |connection| Box::pin(async move { writer::ingest(connection, &rows).await })).await
    }

    /// Puts a value that was fetched from the object store back beside its row.
    pub async fn refill(&self, name: Bytes, version: Version, value: Bytes) -> Result<(), NodeError> {
        self.set_value(
            "UPDATE entries SET value = ? WHERE name = ? AND version = ? AND tombstone = 0 AND value IS NULL",
            name,
            version,
            value,
        )
        .await
    }

    /// Puts the right value in the place of one that is not what was written.
    pub async fn mend(&self, name: Bytes, version: Version, value: Bytes) -> Result<(), NodeError> {
        self.set_value(
            "UPDATE entries SET value = ? WHERE name = ? AND version = ? AND tombstone = 0 AND value IS NOT NULL",
            name,
            version,
            value,
        )
        .await
    }

    async fn set_value(
        &self,
        statement: &'static str,
        name: Bytes,
        version: Version,
        value: Bytes,
    ) -> Result<(), NodeError> {
        self.with_writer(move |connection| {
            Box::pin(async move {
                sqlx::query(statement)
                    .bind(&value[..])
                    .bind(&name[..])
                    .bind(version.0.cast_signed())
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    /// Drops rows for good. Returns how many went.
    pub async fn remove_rows(&self, rows: Vec<(i64, Version)>) -> Result<u64, NodeError> {
        self.remove("DELETE FROM entries WHERE id = ? AND version = ?", rows).await
    }

    async fn remove(&self, statement: &'static str, rows: Vec<(i64, Version)>) -> Result<u64, NodeError> {
        self.with_writer(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                let mut removed = 0;
                for (id, version) in rows {
                    keep_version(&mut transaction, id).await?;
                    let done = sqlx::query(statement)
                        .bind(id)
                        .bind(version.0.cast_signed())
                        .execute(&mut *transaction)
                        .await?;
                    removed += done.rows_affected();
                }
                transaction.commit().await?;
                sqlx::query(VACUUM_PAGES).execute(connection).await?;
                Ok(removed)
            })
        })
        .await
    }
}

/// Keeps the partition's highest version, which may be that of a row that is about to go.
async fn keep_version(connection: &mut SqliteConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE partitions SET last_version = max(last_version, e.version) FROM entries e WHERE e.id = ? AND partitions.id = e.partition",
    )
    .bind(id)
    .execute(connection)
    .await
    .map(|_| ())
}
