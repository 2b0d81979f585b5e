//! What this process knows of its objects: which segments are under way, who waits for one, which values rest.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::checkpoint::Known;

/// How long a value that could not be stored by itself is left alone, and how many are remembered.
const REST: Duration = Duration::from_secs(30);
const MAX_RESTING: usize = 1_024;

/// See the module.
#[derive(Default)]
pub struct Uploads {
    /// The last number given to an object.
    seq: AtomicU64,
    /// The numbers of segments that may still count.
    under_way: Mutex<BTreeSet<u64>>,
    /// Requests that wait for their uploads, and since when.
    awaited: Mutex<(usize, Option<Instant>)>,
    pub(super) hurry: Notify,
    /// Values that could not be stored by themselves, and since when.
    resting: Mutex<HashMap<Bytes, Instant>>,
    /// By partition, what is known of its checkpoints.
    pub(super) known: Mutex<HashMap<u32, Known>>,
}

/// A request that waits for its upload, as long as it is there.
pub(super) struct Awaited<'a>(&'a Uploads);

/// A segment that may still count, as long as this is there.
pub(super) struct UnderWay<'a>(&'a Uploads, pub(super) u64);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    /// Makes the next segment be cut soon.
    pub(super) fn wait(&self) -> Awaited<'_> {
        let mut awaited = lock(&self.awaited);
        *awaited = (awaited.0 + 1, awaited.1.or_else(|| Some(Instant::now())));
        self.hurry.notify_one();
        Awaited(self)
    }

    /// Leaves a value alone for a while, so that one which the bucket refuses does not hold up the others.
    pub(super) fn rest(&self, name: Bytes) {
        let mut resting = lock(&self.resting);
        resting.retain(|_, since| since.elapsed() < REST);
        if resting.len() < MAX_RESTING {
            resting.insert(name, Instant::now());
        }
    }

    pub(super) fn rests(&self, name: &Bytes) -> bool {
        lock(&self.resting).get(name).is_some_and(|since| since.elapsed() < REST)
    }

    /// A number for an object, never given before by this process.
    pub(super) fn next(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Below this number, each segment either counts by now or never will.
    pub(super) fn settled_below(&self) -> u64 {
        let under_way = lock(&self.under_way);
        under_way.first().copied().unwrap_or_else(|| self.seq.load(Ordering::Relaxed) + 1)
    }

    /// Begins a segment.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        let mut under_way = lock(&self.under_way);
        let seq = self.next();
        under_way.insert(seq);
        UnderWay(self, seq)
    }

    pub(super) fn awaited_since(&self) -> Option<Duration> {
        lock(&self.awaited).1.map(|since| since.elapsed())
    }

    /// Whoever still waits, waits for the next segment.
    pub(super) fn cut(&self) {
        let mut awaited = lock(&self.awaited);
        awaited.1 = (awaited.0 > 0).then(Instant::now);
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut awaited = lock(&self.0.awaited);
        awaited.0 -= 1;
        if awaited.0 == 0 {
            awaited.1 = None;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.0.under_way).remove(&self.1);
    }
}
