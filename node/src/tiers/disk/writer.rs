//! The one writer: everything that waits goes into one multi-row statement, so that a commit, and at need a flush, is
//! shared by all. Row by row, SQLite takes a fifth of that.
//!
//! Writes are committed in the order in which they were queued. When a batch fails, everything queued behind it fails
//! with it, because it may have been decided on top of what was lost.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use cairn_api_spec::operation::Metadata;
use cairn_engine::{Change, TierError, checksum};
use cairn_object_tier::Place;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions},
};

use super::{
    COLUMNS, Mark, Row, idempotency,
    log::Log,
    notes,
    queue::{Committed, Job, Queue, Write},
};
use crate::error::NodeError;

/// Rows of one statement; each count is a prepared statement of its own.
pub(super) const MAX_STATEMENT_ROWS: usize = 64;
/// How long to wait before a database that could not be opened is tried again.
const RECONNECT: Duration = Duration::from_millis(200);

pub(super) async fn run(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    queue: Arc<Queue>,
    tracks_uploads: bool,
    committed: Committed,
) {
    let (mut flushing, mut log) = (false, Log::of(&options));
    while let Some(jobs) = queue.take().await {
        queue.begin();
        let mut writes = Vec::with_capacity(jobs.len());
        let mut good = true;
        for job in jobs {
            match job {
                Job::Write(write) => writes.push(write),
                Job::Task(task, flush) => {
                    good = match set_flushing(&mut connection, flush, &mut flushing).await {
                        Ok(()) => task(&mut connection).await,
                        Err(error) => {
                            tracing::error!(%error, "the disk tier cannot be told when to flush");
                            false
                        }
                    }
                }
            }
        }
        if !writes.is_empty() {
            match commit(&mut connection, &writes, tracks_uploads, &mut flushing).await {
                Ok(()) => committed(writes, Ok(())),
                Err(error) => {
                    good = false;
                    fail(&queue, writes, &NodeError::from(error).into(), &committed);
                }
            }
        }
        if !good {
            let Some(another) = reconnect(&options, &queue).await else { return };
            (connection, flushing) = (another, false);
            queue.take_again();
        }
        log.keep_short(&mut connection).await;
        queue.end();
    }
    super::close(connection).await;
}

/// A connection in place of one that failed: SQLite may have ended its transaction by itself, and what the connection
/// believes of it is wrong from then on. `None` when the queue is closed first.
async fn reconnect(options: &SqliteConnectOptions, queue: &Queue) -> Option<SqliteConnection> {
    loop {
        match options.connect().await {
            Ok(connection) => return Some(connection),
            Err(error) => tracing::error!(%error, "the database cannot be opened again"),
        }
        if queue.is_closed() {
            return None;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Fails a batch and everything behind it. Nothing new gets in until the writer has another connection, so nothing can
/// be decided on top of a write that is lost.
fn fail(queue: &Queue, mut writes: Vec<Write>, error: &TierError, committed: &Committed) {
    tracing::error!(%error, "the disk tier takes no writes");
    let behind = queue.refuse(error);
    // A dropped task tells its caller by the channel that closes.
    writes.extend(behind.into_iter().filter_map(|job| match job {
        Job::Write(write) => Some(write),
        Job::Task(..) => None,
    }));
    committed(writes, Err(error.clone()));
}

/// Says whether commits flush the medium from now on. One that does flushes all before it, too: they are in the same log.
async fn set_flushing(connection: &mut SqliteConnection, flush: bool, flushing: &mut bool) -> Result<(), sqlx::Error> {
    if flush != *flushing {
        let pragma = if flush { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
        sqlx::query(pragma).execute(&mut *connection).await?;
        *flushing = flush;
    }
    Ok(())
}

async fn commit(
    connection: &mut SqliteConnection,
    writes: &[Write],
    tracks_uploads: bool,
    flushing: &mut bool,
) -> Result<(), sqlx::Error> {
    set_flushing(connection, writes.iter().any(|write| write.flush), flushing).await?;
    let keyed: Vec<_> = writes.iter().filter_map(idempotency::Record::of_write).collect();
    let rows: Vec<_> = writes.iter().filter_map(|write| Record::of_write(write, tracks_uploads)).collect();
    if rows.len() <= MAX_STATEMENT_ROWS && keyed.is_empty() {
        return upsert(connection, rows.iter()).await;
    }
    let mut transaction = connection.begin().await?;
    for chunk in rows.chunks(MAX_STATEMENT_ROWS) {
        upsert(&mut transaction, chunk.iter()).await?;
    }
    idempotency::insert(&mut transaction, &keyed).await?;
    transaction.commit().await
}

/// Stores rows as they came from a peer or the object store.
pub(super) async fn ingest(connection: &mut SqliteConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for chunk in rows.chunks(MAX_STATEMENT_ROWS) {
        let records: Vec<_> = chunk.iter().map(Record::of_row).collect();
        upsert(&mut transaction, records.iter()).await?;
    }
    let uploaded = rows.iter().filter(|row| row.object_version == row.metadata.version && !row.tombstone);
    let marks: Vec<Mark> = uploaded.map(mark).collect();
    notes::note(&mut transaction, &marks, false).await?;
    transaction.commit().await
}

fn mark(row: &Row) -> Mark {
    let place = row.place.clone().unwrap_or(Place::Versioned);
    Mark { name: row.name.clone(), version: row.metadata.version, place: Some(place) }
}

/// The parts of a row, borrowed from wherever they are.
struct Record<'a> {
    name: &'a [u8],
    partition: u32,
    metadata: std::borrow::Cow<'a, Metadata>,
    checksum: u64,
    tombstone: bool,
    dirty: bool,
    value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// `None` for a note, which has no row.
    fn of_write(write: &'a Write, dirty: bool) -> Option<Self> {
        Some(match &write.change {
            Change::Note { .. } => return None,
            Change::Put(entry) => Self {
                name: entry.name(),
                partition: write.partition,
                checksum: checksum(entry.name(), entry.version(), entry.value()),
                metadata: std::borrow::Cow::Owned(entry.metadata()),
                tombstone: false,
                dirty,
                value: Some(entry.value()),
            },
            Change::Delete { name, version, at, .. } => Self {
                name,
                partition: write.partition,
                metadata: std::borrow::Cow::Owned(Metadata {
                    version: *version,
                    modified_at: *at,
                    expires_at: None,
                    size: 0,
                    content_type: String::new(),
                }),
                checksum: 0,
                tombstone: true,
                dirty,
                value: None,
            },
        })
    }

    fn of_row(row: &'a Row) -> Self {
        Self {
            name: &row.name,
            partition: row.partition,
            metadata: std::borrow::Cow::Borrowed(&row.metadata),
            checksum: row.checksum,
            tombstone: row.tombstone,
            dirty: row.dirty,
            value: row.value.as_deref(),
        }
    }

    fn bind<'q>(&'q self, query: Query<'q, Sqlite, SqliteArguments>) -> Query<'q, Sqlite, SqliteArguments> {
        query
            .bind(self.name)
            .bind(self.partition)
            .bind(self.metadata.version.0.cast_signed())
            .bind(self.metadata.modified_at.cast_signed())
            .bind(self.metadata.expires_at.map(u64::cast_signed))
            .bind(self.metadata.size.cast_signed())
            .bind(self.metadata.content_type.as_str())
            .bind(self.checksum.cast_signed())
            .bind(self.tombstone)
            .bind(self.dirty)
            .bind(self.value)
    }
}

/// The statement for each number of rows, from 1.
static UPSERTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,0,?)";
    (1..=MAX_STATEMENT_ROWS)
        .map(|rows| {
            format!(
                "INSERT INTO entries ({COLUMNS}, value) VALUES {} \
                 ON CONFLICT (name) DO UPDATE SET version = excluded.version, modified_at = excluded.modified_at, \
                 expires_at = excluded.expires_at, size = excluded.size, content_type = excluded.content_type, \
                 checksum = excluded.checksum, tombstone = excluded.tombstone, dirty = excluded.dirty, \
                 value = excluded.value WHERE excluded.version > entries.version",
                vec![ROW; rows].join(",")
            )
        })
        .collect()
});

async fn upsert<'a>(
    connection: &mut SqliteConnection,
    records: impl ExactSizeIterator<Item = &'a Record<'a>>,
) -> Result<(), sqlx::Error> {
    let Some(statement) = records.len().checked_sub(1).and_then(|index| UPSERTS.get(index)) else { return Ok(()) };
    let query = records.fold(sqlx::query(statement.as_str()), |query, record| record.bind(query));
    query.execute(connection).await.map(|_| ())
}
