//! The one writer: everything that waits goes into one multi-row statement, so that a commit, and at need a flush, is
//! shared by all. Row by row, SQLite takes a fifth of that.
//!
//! Writes are committed in the order in which they were queued. When a batch fails, everything queued behind it fails
//! with it, because it may have been decided on top of what was lost.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{EntryName, Version, operation::Metadata, peer};
use cairn_server_kit::trace::Span;
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{COLUMNS, Idempotency, Row, idempotency};
use crate::{
    entry::{Entry, checksum},
    error::NodeError,
    mailbox::Reply,
};

/// Rows of one statement: more gain little, and each count is a prepared statement of its own.
pub(super) const MAX_STATEMENT_ROWS: usize = 64;
/// Jobs of one transaction.
const MAX_BATCH: usize = 512;
/// What may wait for the disk: 64 MiB, counted in KiB.
const MAX_QUEUED_KIB: u32 = 64 << 10;
/// How long writes that nobody waits for may gather.
const LINGER: Duration = Duration::from_millis(2);
/// How long to wait before a database that could not be opened is tried again.
const RECONNECT: Duration = Duration::from_millis(200);
/// The longest that a write waits for room in the queue.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Room in the queue, given back with the last clone.
pub type Reservation = Arc<OwnedSemaphorePermit>;

/// Called with every batch that is on the disk, or with why it is not, before anything behind it is written.
pub type Committed = Box<dyn Fn(Vec<Write>, Result<(), NodeError>) + Send + Sync>;

/// A change of one key, its version assigned.
pub struct Write {
    /// The partition of the key.
    pub partition: u32,
    /// What changes.
    pub change: Change,
    /// Whether the medium must be flushed.
    pub flush: bool,
    /// Whether somebody waits for the write, by `reply` or otherwise: then it does not linger.
    pub awaited: bool,
    /// Who is told when it is on the disk, if anyone.
    pub reply: Option<Reply>,
    /// Held until the write is settled.
    pub reservation: Option<Reservation>,
    /// What the write can be known by when it is sent again.
    pub idempotency: Option<Idempotency>,
    /// Ends when the write is settled.
    pub span: Span,
}

/// What changes.
#[derive(Clone)]
pub enum Change {
    /// The key has this value.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// Its name.
        name: Bytes,
        /// The version of the deletion.
        version: Version,
        /// When, in milliseconds since the Unix epoch.
        at: u64,
    },
}

impl Change {
    /// The name of the key.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Put(entry) => entry.name(),
            Self::Delete { name, .. } => name,
        }
    }

    /// Gives the version to a change that nobody shares yet.
    pub fn set_version(&mut self, to: Version) {
        match self {
            Self::Put(entry) => entry.set_version(to),
            Self::Delete { version, .. } => *version = to,
        }
    }

    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        match self {
            Self::Put(entry) => entry.value().len(),
            Self::Delete { .. } => 0,
        }
    }

    /// The message for the change.
    pub fn to_peer(&self) -> peer::Row {
        match self {
            Self::Put(entry) => {
                let metadata = entry.metadata();
                peer::Row {
                    name: Bytes::copy_from_slice(entry.name()),
                    version: metadata.version.0,
                    modified_at: metadata.modified_at,
                    expires_at: metadata.expires_at.unwrap_or(0),
                    size: metadata.size,
                    content_type: metadata.content_type,
                    value: Some(entry.value_bytes()),
                    ..peer::Row::default()
                }
            }
            Self::Delete { name, version, at } => peer::Row {
                name: name.clone(),
                version: version.0,
                modified_at: *at,
                tombstone: true,
                ..peer::Row::default()
            },
        }
    }

    /// The change that a peer sent; the value must be there.
    ///
    /// # Errors
    /// [`NodeError::Transfer`] when it cannot be read.
    pub fn from_peer(row: peer::Row) -> Result<Self, NodeError> {
        let unreadable = |what: &str| NodeError::Transfer(format!("a peer sent a write without a readable {what}"));
        let name = EntryName::from_bytes(row.name).map_err(|_| unreadable("name"))?;
        if row.tombstone {
            return Ok(Self::Delete {
                name: name.as_bytes().clone(),
                version: Version(row.version),
                at: row.modified_at,
            });
        }
        let metadata = Metadata {
            version: Version(row.version),
            modified_at: row.modified_at,
            expires_at: Some(row.expires_at).filter(|at| *at > 0),
            size: row.size,
            content_type: row.content_type,
        };
        Ok(Self::Put(Entry::new(&name, &metadata, &row.value.ok_or_else(|| unreadable("value"))?)))
    }

    /// The version that the change gives it.
    pub fn version(&self) -> Version {
        match self {
            Self::Put(entry) => entry.version(),
            Self::Delete { version, .. } => *version,
        }
    }
}

/// Something else that the writer's connection is needed for; says whether it went well.
pub(super) type Task = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, bool> + Send>;

pub(super) enum Job {
    Write(Write),
    Task(Task),
}

impl Job {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Write(write) => write.awaited,
            Self::Task(_) => true,
        }
    }
}

/// What waits for the writer, in order.
pub(super) struct Queue {
    state: Mutex<QueueState>,
    filled: Notify,
    room: Arc<Semaphore>,
    /// Room for what primaries send, which must not wait behind this node's own clients: they wait for other nodes.
    peer_room: Arc<Semaphore>,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// Somebody waits for one of them.
    awaited: bool,
    refusing: Option<NodeError>,
    closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(MAX_QUEUED_KIB as usize));
        Self { state: Mutex::default(), filled: Notify::new(), room: room(), peer_room: room() }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn reserve(&self, bytes: usize, for_peer: bool) -> Result<Reservation, NodeError> {
        let room = if for_peer { &self.peer_room } else { &self.room };
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(MAX_QUEUED_KIB);
        if let Ok(permit) = room.clone().try_acquire_many_owned(kib) {
            return Ok(Arc::new(permit));
        }
        match tokio::time::timeout(RESERVE_TIMEOUT, room.clone().acquire_many_owned(kib)).await {
            Ok(Ok(permit)) => Ok(Arc::new(permit)),
            Ok(Err(_)) => Err(NodeError::ShuttingDown),
            Err(_) => Err(NodeError::Overloaded),
        }
    }

    /// Puts all jobs into the queue, next to each other, or none.
    pub(super) fn push_all(&self, jobs: impl ExactSizeIterator<Item = Job>) -> Result<(), NodeError> {
        let mut state = self.lock();
        if state.closed {
            return Err(NodeError::ShuttingDown);
        }
        if let Some(error) = &state.refusing {
            return Err(error.clone());
        }
        let (empty, before, awaited_before) = (state.jobs.is_empty(), state.jobs.len(), state.awaited);
        for job in jobs {
            state.awaited |= job.is_awaited();
            state.jobs.push_back(job);
        }
        // Whatever is awaited already, or lingers, needs no second word: a wake-up costs more than the job.
        let full = before <= MAX_BATCH && state.jobs.len() > MAX_BATCH;
        let wake = empty || (state.awaited && !awaited_before) || full;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    pub(super) fn push(&self, job: Job) -> Result<(), NodeError> {
        self.push_all(std::iter::once(job))
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.peer_room.close();
        self.filled.notify_one();
    }

    /// The next jobs, all writes or a single task; `None` once the queue is closed and empty. Writes that nobody waits
    /// for linger a little, so that more share their commit.
    async fn take(&self) -> Option<Vec<Job>> {
        let mut lingered = false;
        loop {
            let empty = {
                let mut state = self.lock();
                if state.awaited || state.closed || lingered || state.jobs.len() > MAX_BATCH {
                    let writes =
                        state.jobs.iter().take(MAX_BATCH).take_while(|job| matches!(job, Job::Write(_))).count();
                    let count = writes.max(1).min(state.jobs.len());
                    if count > 0 {
                        let jobs = state.jobs.drain(..count).collect();
                        state.awaited &= !state.jobs.is_empty();
                        return Some(jobs);
                    }
                    if state.closed {
                        return None;
                    }
                }
                state.jobs.is_empty()
            };
            if empty {
                self.filled.notified().await;
                // Lets the thread that woke this one, if they share a core, queue the other requests that it holds.
                std::thread::yield_now();
            } else {
                lingered = tokio::time::timeout(LINGER, self.filled.notified()).await.is_err();
            }
        }
    }
}

pub(super) async fn run(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    queue: Arc<Queue>,
    tracks_uploads: bool,
    committed: Committed,
) {
    let mut flushing = false;
    while let Some(jobs) = queue.take().await {
        let mut writes = Vec::with_capacity(jobs.len());
        let mut good = true;
        for job in jobs {
            match job {
                Job::Write(write) => writes.push(write),
                Job::Task(task) => good = task(&mut connection).await,
            }
        }
        if !writes.is_empty() {
            match commit(&mut connection, &writes, tracks_uploads, &mut flushing).await {
                Ok(()) => committed(writes, Ok(())),
                Err(error) => {
                    good = false;
                    fail(&queue, writes, &error.into(), &committed);
                }
            }
        }
        if !good {
            let Some(another) = reconnect(&options, &queue).await else { return };
            (connection, flushing) = (another, false);
            queue.lock().refusing = None;
        }
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
        if queue.lock().closed {
            return None;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Fails a batch and everything behind it. Nothing new gets in until the writer has another connection, so nothing can
/// be decided on top of a write that is lost.
fn fail(queue: &Queue, mut writes: Vec<Write>, error: &NodeError, committed: &Committed) {
    tracing::error!(%error, "the disk tier takes no writes");
    let behind = {
        let mut state = queue.lock();
        state.refusing = Some(error.clone());
        std::mem::take(&mut state.jobs)
    };
    // A dropped task tells its caller by the channel that closes.
    writes.extend(behind.into_iter().filter_map(|job| match job {
        Job::Write(write) => Some(write),
        Job::Task(_) => None,
    }));
    committed(writes, Err(error.clone()));
}

async fn commit(
    connection: &mut SqliteConnection,
    writes: &[Write],
    tracks_uploads: bool,
    flushing: &mut bool,
) -> Result<(), sqlx::Error> {
    let flush = writes.iter().any(|write| write.flush);
    if flush != *flushing {
        let pragma = if flush { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
        sqlx::query(pragma).execute(&mut *connection).await?;
        *flushing = flush;
    }
    let keyed: Vec<_> = writes.iter().filter_map(idempotency::Record::of_write).collect();
    if writes.len() <= MAX_STATEMENT_ROWS && keyed.is_empty() {
        return upsert(connection, writes.iter().map(|write| Record::of_write(write, tracks_uploads))).await;
    }
    let mut transaction = connection.begin().await?;
    for chunk in writes.chunks(MAX_STATEMENT_ROWS) {
        upsert(&mut transaction, chunk.iter().map(|write| Record::of_write(write, tracks_uploads))).await?;
    }
    idempotency::insert(&mut transaction, &keyed).await?;
    transaction.commit().await
}

/// Stores rows as they came from a peer or the object store.
pub(super) async fn ingest(connection: &mut SqliteConnection, rows: &[Row]) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for chunk in rows.chunks(MAX_STATEMENT_ROWS) {
        upsert(&mut transaction, chunk.iter().map(Record::of_row)).await?;
        for row in chunk.iter().filter(|row| row.object_version > Version::NONE) {
            sqlx::query("UPDATE entries SET object_version = ? WHERE name = ?")
                .bind(row.object_version.0.cast_signed())
                .bind(&row.name[..])
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await
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
    fn of_write(write: &'a Write, dirty: bool) -> Self {
        match &write.change {
            Change::Put(entry) => Self {
                name: entry.name(),
                partition: write.partition,
                checksum: checksum(entry.name(), entry.version(), entry.value()),
                metadata: std::borrow::Cow::Owned(entry.metadata()),
                tombstone: false,
                dirty,
                value: Some(entry.value()),
            },
            Change::Delete { name, version, at } => Self {
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
        }
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

    fn bind<'q>(self, query: Query<'q, Sqlite, SqliteArguments>) -> Query<'q, Sqlite, SqliteArguments> {
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
    records: impl ExactSizeIterator<Item = Record<'a>>,
) -> Result<(), sqlx::Error> {
    let Some(statement) = records.len().checked_sub(1).and_then(|index| UPSERTS.get(index)) else { return Ok(()) };
    let query = records.fold(sqlx::query(statement.as_str()), |query, record| record.bind(query));
    query.execute(connection).await.map(|_| ())
}
