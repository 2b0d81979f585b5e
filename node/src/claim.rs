//! Who is at work on which idempotency key: of two requests with the same key, the second waits for what becomes of the
//! first, whether that one's client is still there or not.
//!
//! A request claims its key before it looks for it on the disk, and holds the claim until it has made a write of it; then
//! the partition holds it until the write is on the disk, where the next request finds it, or has failed.

use std::{collections::HashMap, sync::Arc};

use cairn_api_spec::{Version, operation::IdempotencyKey};
use tokio::sync::watch;

use crate::partition::Partitions;

/// The claimed keys of one partition; no more than requests and writes under way.
#[derive(Default)]
pub struct Claims {
    held: HashMap<IdempotencyKey, Held>,
    /// The number of the last claim.
    last: u64,
}

struct Held {
    by: Holder,
    /// Whoever waits sees it go.
    released: Option<watch::Sender<()>>,
}

/// What a key was claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A request, by the number of its claim.
    Request(u64),
    /// A write that is on its way to the disk.
    Write(Version),
}

impl Claims {
    /// Claims a key for a request, or says what ends when it is free.
    ///
    /// # Errors
    /// When the key is claimed.
    pub fn take(&mut self, key: &IdempotencyKey) -> Result<Holder, watch::Receiver<()>> {
        if let Some(held) = self.held.get_mut(key) {
            return Err(held.released.get_or_insert_default().subscribe());
        }
        self.last += 1;
        let by = Holder::Request(self.last);
        self.held.insert(key.clone(), Held { by, released: None });
        Ok(by)
    }

    /// Whether the claim stands.
    pub fn holds(&self, key: &IdempotencyKey, by: Holder) -> bool {
        self.held.get(key).is_some_and(|held| held.by == by)
    }

    /// Passes a request's claim on to the write that it has become.
    pub fn pass_on(&mut self, key: &IdempotencyKey, version: Version) {
        if let Some(held) = self.held.get_mut(key) {
            held.by = Holder::Write(version);
        }
    }

    /// Ends a claim, if it stands.
    pub fn release(&mut self, key: &IdempotencyKey, by: Holder) {
        if self.holds(key, by) {
            self.held.remove(key);
        }
    }

    /// Ends all claims.
    pub fn clear(&mut self) {
        self.held.clear();
    }
}

/// A request's claim of a key. When the request ends, however, so does the claim, unless it was passed on.
pub struct Claim {
    partitions: Arc<Partitions>,
    partition: u32,
    key: IdempotencyKey,
    by: Holder,
}

impl Claim {
    /// The claim that [`Claims::take`] gave.
    pub fn new(partitions: Arc<Partitions>, partition: u32, key: IdempotencyKey, by: Holder) -> Self {
        Self { partitions, partition, key, by }
    }

    /// The key.
    pub fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    /// Whether the claim stands: it has not, if the node has lost the partition meanwhile.
    pub fn stands(&self, claims: &Claims) -> bool {
        claims.holds(&self.key, self.by)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.partitions.lock(self.partition).claims.release(&self.key, self.by);
    }
}
