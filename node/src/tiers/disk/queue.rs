//! What waits for the disk's writer, in order and within bounds.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_engine::{Change, Idempotency, Room, TierError};
use cairn_server_kit::trace::Span;
use futures_util::future::BoxFuture;
use sqlx::SqliteConnection;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::{clock, error::NodeError};

/// Jobs of one transaction.
const MAX_BATCH: usize = 512;
/// What may wait for the disk: 64 MiB, counted in KiB.
const MAX_QUEUED_KIB: u32 = 64 << 10;
/// How long writes that nobody waits for may gather.
const LINGER: Duration = Duration::from_millis(2);
/// The longest that a write waits for room in the queue.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Called with every batch that is on the disk, or with why it is not, before anything behind it is written.
pub type Committed = Box<dyn Fn(Vec<Write>, Stored) + Send + Sync>;

/// What became of a write.
pub type Stored = Result<(), TierError>;

/// A change of one key, its version assigned.
pub struct Write {
    /// The partition of the key.
    pub partition: u32,
    /// What changes.
    pub change: Change,
    /// Whether the medium must be flushed.
    pub flush: bool,
    /// Whether somebody waits for the write, by `stored` or otherwise: then it does not linger.
    pub awaited: bool,
    /// Who is told when it is on the disk, if anyone.
    pub stored: Option<oneshot::Sender<Stored>>,
    /// Held until the write is settled.
    pub room: Option<Room>,
    /// What the write can be known by when it is sent again.
    pub idempotency: Option<Idempotency>,
    /// Ends when the write is settled.
    pub span: Span,
}

/// Something else that the writer's connection is needed for; says whether it went well.
pub(super) type Task = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, bool> + Send>;

pub(super) enum Job {
    Write(Write),
    /// With whether the medium is flushed at the end, of everything before it, too.
    Task(Task, bool),
}

impl Job {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Write(write) => write.awaited,
            Self::Task(..) => true,
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
    /// When the writer began what it is doing, on the clock of leases; 0: it does nothing.
    busy_since: AtomicU64,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// Somebody waits for one of them.
    awaited: bool,
    refusing: Option<TierError>,
    closed: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(MAX_QUEUED_KIB as usize));
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            room: room(),
            peer_room: room(),
            busy_since: AtomicU64::new(0),
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins some work.
    pub(super) fn begin(&self) {
        self.busy_since.store(clock::now(), Ordering::Relaxed);
    }

    /// The writer has ended it.
    pub(super) fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// Takes nothing in until [`Queue::take_again`]. Returns what stood in the queue.
    pub(super) fn refuse(&self, error: &TierError) -> VecDeque<Job> {
        let mut state = self.lock();
        state.refusing = Some(error.clone());
        std::mem::take(&mut state.jobs)
    }

    /// Takes jobs again.
    pub(super) fn take_again(&self) {
        self.lock().refusing = None;
    }

    /// Whether nothing comes any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// For how many milliseconds the writer has been at the same work.
    pub(super) fn busy_for(&self, now: u64) -> u64 {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }

    pub(super) async fn reserve(&self, bytes: usize, for_peer: bool) -> Result<Room, NodeError> {
        let room = if for_peer { &self.peer_room } else { &self.room };
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(MAX_QUEUED_KIB);
        if let Ok(permit) = room.clone().try_acquire_many_owned(kib) {
            return Ok(Arc::new(permit));
        }
        match tokio::time::timeout(RESERVE_TIMEOUT, room.clone().acquire_many_owned(kib)).await {
            Ok(Ok(permit)) => Ok(Arc::new(permit)),
            Ok(Err(_)) => Err(TierError::ShuttingDown.into()),
            Err(_) => Err(TierError::Overloaded.into()),
        }
    }

    /// Puts all jobs into the queue, next to each other, or none.
    pub(super) fn push_all(&self, jobs: impl ExactSizeIterator<Item = Job>) -> Result<(), NodeError> {
        let mut state = self.lock();
        if state.closed {
            return Err(TierError::ShuttingDown.into());
        }
        if let Some(error) = &state.refusing {
            return Err(error.clone().into());
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
    pub(super) async fn take(&self) -> Option<Vec<Job>> {
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
