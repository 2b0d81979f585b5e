//! How fast the map may move, and how many copies it made. What an operator changed stands in the metadata store under a key
//! of its own and outlives the master; the rest is as configured.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use cairn_api_spec::cluster::ChangeRebalance;

use crate::{
    config::{MAX_MOVES, MAX_TRANSFER_RATE},
    error::Error,
    metastore::{MetadataStore, Revision, StoreError, decode, encode},
};

const KEY: &str = "rebalance";

/// How fast the map may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// No move is begun.
    pub paused: bool,
    /// Partitions that may be copied at the same time, and as many again of which copies were lost.
    pub max_moves: u32,
    /// The most bytes a second that each node may copy from others; 0: no limit.
    pub bytes_per_second: u64,
}

/// The limits, and counts of moves.
pub struct Rebalancing {
    store: Arc<dyn MetadataStore>,
    configured: Limits,
    /// What was changed while running.
    changed: Mutex<ChangeRebalance>,
    /// The stored revision of `changed`. Held over a change, so that changes come one after the other.
    revision: tokio::sync::Mutex<Option<Revision>>,
    done: AtomicU64,
    left: AtomicU32,
}

impl Rebalancing {
    /// Reads what was changed before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: Arc<dyn MetadataStore>, configured: Limits) -> Result<Self, StoreError> {
        let rebalancing = Self {
            store,
            configured,
            changed: Mutex::default(),
            revision: tokio::sync::Mutex::default(),
            done: AtomicU64::new(0),
            left: AtomicU32::new(0),
        };
        rebalancing.reload(&mut *rebalancing.revision.lock().await).await?;
        Ok(rebalancing)
    }

    /// The limits that hold now.
    pub fn limits(&self) -> Limits {
        let changed = self.changed();
        Limits {
            paused: changed.paused.unwrap_or(self.configured.paused),
            max_moves: changed.max_moves.unwrap_or(self.configured.max_moves),
            bytes_per_second: changed.bytes_per_second.unwrap_or(self.configured.bytes_per_second),
        }
    }

    /// Changes the limits, durably; what the change does not name stays.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a number out of its bounds, [`Error::Store`].
    pub async fn change(&self, asked: &ChangeRebalance) -> Result<(), Error> {
        check(asked)?;
        let mut revision = self.revision.lock().await;
        let known = self.changed();
        let changed = ChangeRebalance {
            paused: asked.paused.or(known.paused),
            max_moves: asked.max_moves.or(known.max_moves),
            bytes_per_second: asked.bytes_per_second.or(known.bytes_per_second),
        };
        match self.store.cas(KEY, *revision, Some(encode(KEY, &changed)?)).await {
            Ok(stored) => *revision = Some(stored),
            Err(error) => {
                // The copy in memory may be old: the next change then sees the truth.
                self.reload(&mut revision).await?;
                return Err(error.into());
            }
        }
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        tracing::info!(limits = ?self.limits(), "the limits of rebalancing were changed");
        Ok(())
    }

    /// Copies finished since the master started.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Copies that are still to begin.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    /// A copy is finished.
    pub(crate) fn count_done(&self, copies: usize) {
        self.done.fetch_add(copies as u64, Ordering::Relaxed);
    }

    /// So many copies are still to begin.
    pub(crate) fn set_left(&self, copies: usize) {
        self.left.store(u32::try_from(copies).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    async fn reload(&self, revision: &mut Option<Revision>) -> Result<(), StoreError> {
        let stored = self.store.get(KEY).await?;
        let changed = stored.as_ref().map(|entry| decode(KEY, &entry.value)).transpose()?;
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = changed.unwrap_or_default();
        *revision = stored.map(|entry| entry.revision);
        Ok(())
    }

    fn changed(&self) -> ChangeRebalance {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(asked: &ChangeRebalance) -> Result<(), Error> {
    if let Some(moves) = asked.max_moves.filter(|moves| !(1..=MAX_MOVES).contains(moves)) {
        return Err(Error::InvalidParameter(format!("max_moves is {moves}: it must be 1 to {MAX_MOVES}")));
    }
    if let Some(rate) = asked.bytes_per_second.filter(|rate| *rate > MAX_TRANSFER_RATE) {
        return Err(Error::InvalidParameter(format!(
            "bytes_per_second is {rate}: it must be 0 (no limit) to {MAX_TRANSFER_RATE}"
        )));
    }
    Ok(())
}
