//! The disk tier: one SQLite file, one writer with group commit, readers beside it.
//!
//! The row is the truth about a key; memory is a cache of it, the object store lies below it. This is the only room
//! with SQL in it. It decides nothing: which version a write gets, and who may write, is settled before.

mod idempotency;
mod loader;
mod log;
mod maintenance;
mod notes;
mod places;
mod queue;
mod scan;
mod seen;
mod writer;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{EntryName, Version, operation::Metadata, peer};
use cairn_engine::{Idempotency, Room};
use cairn_object_tier::Place;
use sqlx::{
    ConnectOptions, Connection, Row as _, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};
use tokio_util::task::AbortOnDropHandle;

pub use maintenance::HeldPartition;
pub use places::{Mark, Packed, Waiting, from_peer, to_peer};
pub use queue::{Committed, Stored, Write};
pub use scan::Totals;

use crate::error::NodeError;
use loader::Loader;
use queue::{Job, Queue};
use seen::Seen;

/// Connections for listings, uploads, transfers and sweeps.
const SCAN_CONNECTIONS: u32 = 3;
/// Pages of log before the writer copies them into the file: 16 MiB, so that a burst does not pay for it in pieces.
const CHECKPOINT_PAGES: &str = "4096";
/// Page cache of each connection, in KiB (SQLite counts those as negative): 32 MiB.
const CACHE_KIB: &str = "-32768";
/// Connections for what single requests look up. Scans, which may be slow, must not hold them up.
const POINT_CONNECTIONS: u32 = 1;
/// The longest that a read waits for a connection: less than it may take in all, so that it is the connections that are
/// said to be busy, and not the disk that is said to hang.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);

/// See the module.
pub struct Disk {
    queue: std::sync::Arc<Queue>,
    loader: Loader,
    points: SqlitePool,
    scans: SqlitePool,
    writer: std::sync::Mutex<Option<AbortOnDropHandle<()>>>,
    seen: std::sync::Arc<Seen>,
    note_keys: AbortOnDropHandle<()>,
}

/// A stored row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// See `EntryName::as_bytes`.
    pub name: Bytes,
    /// The partition that the name belongs to.
    pub partition: u32,
    /// What is known of the key.
    pub metadata: Metadata,
    /// See [`cairn_engine::checksum`].
    pub checksum: u64,
    /// Whether the row is a deletion.
    pub tombstone: bool,
    /// Whether the object store has yet to hear of this version.
    pub dirty: bool,
    /// The version that the object store has; 0: none.
    pub object_version: Version,
    /// Where the object store has it; only where it was asked for.
    pub place: Option<Place>,
    /// The value; `None` for a tombstone, for a value that only the object store holds, and where it was not asked for.
    pub value: Option<Bytes>,
}

/// The columns of a [`Row`] but the value, in its order.
const COLUMNS: &str =
    "name, partition, version, modified_at, expires_at, size, content_type, checksum, tombstone, dirty, object_version";

impl Disk {
    /// Opens or creates the file and starts its writer, which tells `committed` of every batch. With
    /// `tracks_uploads`, every write is marked as one that the object store has yet to hear of.
    ///
    /// # Errors
    /// When the file cannot be opened, is no database, or is newer than this program.
    pub async fn open(file: &Path, tracks_uploads: bool, committed: Committed) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .pragma("cache_size", CACHE_KIB)
            .disable_statement_logging();
        let writing = options
            .clone()
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(writer::MAX_STATEMENT_ROWS * 3);
        let mut writer = writing.connect().await?;
        // `run` takes any `Acquire`, with which this future could not be sent between threads.
        sqlx::migrate!("./migrations").run_direct(None, &mut writer, false).await?;
        let readers = options.read_only(true);
        let loader = Loader::start([readers.connect().await?, readers.connect().await?]);
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
        let points = pool(POINT_CONNECTIONS).connect_with(readers.clone()).await?;
        let scans = pool(SCAN_CONNECTIONS).connect_with(readers).await?;
        let queue = std::sync::Arc::new(Queue::default());
        let task = tokio::spawn(writer::run(writer, writing, queue.clone(), tracks_uploads, committed));
        let writer = std::sync::Mutex::new(Some(AbortOnDropHandle::new(task)));
        let seen = std::sync::Arc::new(Seen::new());
        let note_keys = AbortOnDropHandle::new(tokio::spawn(idempotency::note_all(scans.clone(), seen.clone())));
        Ok(Self { queue, loader, points, scans, writer, seen, note_keys })
    }

    /// Reads one row; concurrent calls share statements.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn load(&self, name: Bytes, with_value: bool) -> Result<Option<Row>, NodeError> {
        self.loader.load(name, with_value).await
    }

    /// For how many milliseconds the writer has been at the same work, by the clock of leases.
    pub fn busy_for(&self, now: u64) -> u64 {
        self.queue.busy_for(now)
    }

    /// Waits until `bytes` more may wait for the disk, sent by a client or (`for_peer`) by a primary.
    ///
    /// # Errors
    /// [`TierError::Overloaded`](cairn_engine::TierError::Overloaded) when the disk does not keep up within the deadline.
    pub async fn reserve(&self, bytes: usize, for_peer: bool) -> Result<Room, NodeError> {
        self.queue.reserve(bytes, for_peer).await
    }

    /// Puts a write into the queue, behind all that stand there.
    ///
    /// # Errors
    /// When the disk is failing or the node stops: then the write is not in the queue.
    pub fn enqueue(&self, write: Write) -> Result<(), NodeError> {
        self.note_key(&write);
        self.queue.push(Job::Write(write))
    }

    /// Puts writes into the queue, next to each other: when one of them fails, so does the last.
    ///
    /// # Errors
    /// When the disk is failing or the node stops: then none is in the queue.
    pub fn enqueue_all(&self, writes: Vec<Write>) -> Result<(), NodeError> {
        writes.iter().for_each(|write| self.note_key(write));
        self.queue.push_all(writes.into_iter().map(Job::Write))
    }

    fn note_key(&self, write: &Write) {
        if let Some(Idempotency { key, .. }) = &write.idempotency {
            self.seen.note(write.partition, key.as_str());
        }
    }

    /// Takes no more writes, finishes those in the queue, and closes the file.
    pub async fn close(&self) {
        self.queue.close();
        self.note_keys.abort();
        let task = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the disk writer ended badly");
        }
        self.points.close().await;
        self.scans.close().await;
    }
}

impl Row {
    /// Whether the key is there at `now`.
    pub fn is_live(&self, now: u64) -> bool {
        !self.tombstone && self.metadata.expires_at.is_none_or(|at| at > now)
    }

    /// Reads the columns of [`COLUMNS`], and the value when the statement asked for it.
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let unsigned = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
        Ok(Self {
            name: Bytes::copy_from_slice(row.try_get(0)?),
            partition: row.try_get(1)?,
            metadata: Metadata {
                version: Version(unsigned(2)?),
                modified_at: unsigned(3)?,
                expires_at: row.try_get::<Option<i64>, _>(4)?.map(i64::cast_unsigned),
                size: unsigned(5)?,
                content_type: row.try_get(6)?,
            },
            checksum: unsigned(7)?,
            tombstone: row.try_get(8)?,
            dirty: row.try_get(9)?,
            object_version: Version(unsigned(10)?),
            place: None,
            value: if row.len() > 11 { row.try_get::<Option<Vec<u8>>, _>(11)?.map(Bytes::from) } else { None },
        })
    }
}

impl From<Row> for peer::Row {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            version: row.metadata.version.0,
            modified_at: row.metadata.modified_at,
            expires_at: row.metadata.expires_at.unwrap_or(0),
            size: row.metadata.size,
            content_type: row.metadata.content_type,
            value: row.value,
            object_version: row.object_version.0,
            tombstone: row.tombstone,
            checksum: row.checksum,
            place: row.place.as_ref().and_then(places::to_peer),
            // The disk does not keep it.
            removal: peer::Removal::Delete.into(),
        }
    }
}

impl Row {
    /// The row that a peer sent for `partition`, to a node that uploads or does not.
    ///
    /// # Errors
    /// When the name or the place cannot be read: a value could never be fetched from a place that was left out.
    pub fn from_peer(row: peer::Row, partition: u32, uploads: bool) -> Result<Self, NodeError> {
        let unreadable = |what: &str| NodeError::Transfer(format!("a row without a readable {what}"));
        EntryName::from_bytes(row.name.clone()).map_err(|_| unreadable("name"))?;
        let place = row.place.as_ref().map(|place| places::from_peer(place).ok_or_else(|| unreadable("place")));
        Ok(Self {
            name: row.name,
            partition,
            metadata: Metadata {
                version: Version(row.version),
                modified_at: row.modified_at,
                expires_at: Some(row.expires_at).filter(|at| *at > 0),
                size: row.size,
                content_type: row.content_type,
            },
            checksum: row.checksum,
            tombstone: row.tombstone,
            // A tombstone that the object store has heard of is looked at once more, which does no harm.
            dirty: uploads && row.object_version != row.version,
            object_version: Version(row.object_version),
            place: place.transpose()?,
            value: row.value,
        })
    }
}

/// Numbers as `json_each` reads them.
fn json_list(numbers: &[u32]) -> String {
    format!("[{}]", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

/// Closes a connection that a task owned; what it could still say is of no use to anyone.
async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "a database connection did not close cleanly");
    }
}
