//! The metadata store of a single master: one SQLite file.
//!
//! Every change is on the disk before it is answered (`synchronous=FULL`), and the file is locked for as long as it is
//! open: a second master on the same directory would keep a cache that nobody tells of changes.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Row as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use super::{Change, MetadataStore, Revision, StoreError, Versioned};
use cairn_api_spec::name::prefix_end;

/// How long a start waits for a predecessor to let go of the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a call may take, waiting for the connection included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A store in `master.db`.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection: changes are rare, and one writer needs no retries.
    pool: SqlitePool,
    revision: watch::Sender<Revision>,
}

impl SqliteStore {
    /// Opens the file in `directory`, making both when they do not exist.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the file cannot be made or locked, [`StoreError::Failed`] when it cannot be read.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("master.db");
        let closed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Closed {
            path: path.display().to_string(),
            source,
        };
        tokio::fs::create_dir_all(directory).await.map_err(|error| closed(error.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(DEADLINE)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(|error| closed(error.into()))?;
        sqlx::migrate!("./migrations").run(&pool).await.map_err(failed)?;
        let store = Self { pool, revision: watch::Sender::new(0) };
        store.revision.send_replace(store.revision().await?);
        Ok(store)
    }

    /// Lets go of the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[async_trait]
impl MetadataStore for SqliteStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        within_deadline(self.read_revision()).await
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        within_deadline(self.read(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        within_deadline(self.read_all(prefix)).await
    }

    async fn cas_all(&self, changes: Vec<Change>) -> Result<Revision, StoreError> {
        within_deadline(self.write(changes)).await
    }

    fn watch(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}

/// A transaction that is cut off is rolled back, or was committed just then: the caller reads to know.
async fn within_deadline<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(DEADLINE, call).await.map_err(failed)?
}

impl SqliteStore {
    async fn read_revision(&self) -> Result<Revision, StoreError> {
        let row = sqlx::query("SELECT revision FROM store_revision").fetch_one(&self.pool).await.map_err(failed)?;
        revision_of(&row, 0)
    }

    async fn read(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let row = sqlx::query("SELECT value, revision FROM entries WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.map(|row| Ok(Versioned { value: row.try_get(0).map_err(failed)?, revision: revision_of(&row, 1)? }))
            .transpose()
    }

    async fn read_all(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let end = prefix_end(prefix.as_bytes()).and_then(|end| String::from_utf8(end).ok());
        let rows = sqlx::query(
            "SELECT key, value, revision FROM entries WHERE key >= ? AND (? IS NULL OR key < ?) ORDER BY key",
        )
        .bind(prefix)
        .bind(&end)
        .bind(&end)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| {
                let value = row.try_get(1).map_err(failed)?;
                Ok((row.try_get(0).map_err(failed)?, Versioned { value, revision: revision_of(row, 2)? }))
            })
            .collect()
    }

    async fn write(&self, changes: Vec<Change>) -> Result<Revision, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let row = sqlx::query("UPDATE store_revision SET revision = revision + 1 RETURNING revision")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let revision: i64 = row.try_get(0).map_err(failed)?;
        for change in changes {
            apply(&mut transaction, change, revision).await?;
        }
        transaction.commit().await.map_err(failed)?;
        let revision = u64::try_from(revision).map_err(failed)?;
        self.revision.send_modify(|known| *known = revision.max(*known));
        Ok(revision)
    }
}

/// One statement for each change: it touches a row exactly when the key has the expected revision.
async fn apply(
    transaction: &mut Transaction<'static, Sqlite>,
    change: Change,
    revision: i64,
) -> Result<(), StoreError> {
    let Change { key, expected, value } = change;
    let expected = expected.map(i64::try_from).transpose().map_err(failed)?;
    let query = match (&value, expected) {
        (Some(value), Some(expected)) => {
            sqlx::query("UPDATE entries SET value = ?, revision = ? WHERE key = ? AND revision = ?")
                .bind(value)
                .bind(revision)
                .bind(&key)
                .bind(expected)
        }
        (Some(value), None) => {
            sqlx::query("INSERT INTO entries (value, revision, key) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(value)
                .bind(revision)
                .bind(&key)
        }
        (None, Some(expected)) => {
            sqlx::query("DELETE FROM entries WHERE key = ? AND revision = ?").bind(&key).bind(expected)
        }
        (None, None) => return Err(StoreError::Conflict { key }),
    };
    let touched = query.execute(&mut **transaction).await.map_err(failed)?.rows_affected();
    if touched == 1 { Ok(()) } else { Err(StoreError::Conflict { key }) }
}

fn revision_of(row: &sqlx::sqlite::SqliteRow, column: usize) -> Result<Revision, StoreError> {
    let revision: i64 = row.try_get(column).map_err(failed)?;
    u64::try_from(revision).map_err(failed)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Failed(error.into())
}
