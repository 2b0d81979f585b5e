//! Who is at work on which idempotency key: of two requests with the same key, the second waits for what becomes of the
//! first, whether that one's client is still there or not.
//!
//! A request claims its key before it is looked for on the disk, and holds the claim until a write comes of it; then the
//! write holds it until it is on the disk, where the next request finds it, or has failed.

use std::collections::{BTreeSet, HashMap};

use cairn_api_spec::{Version, operation::IdempotencyKey};

use crate::request::JobId;

/// The claimed keys of one partition: no more than requests and writes under way.
#[derive(Default)]
pub(crate) struct Claims {
    held: HashMap<IdempotencyKey, Held>,
}

struct Held {
    by: Holder,
    waiting: BTreeSet<JobId>,
}

/// What a key is claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Request(JobId),
    /// A write that is on its way to the disk.
    Write(Version),
}

impl Claims {
    /// Claims a key for a request, or lets the request wait behind whoever holds it. Returns whether it is claimed.
    pub(crate) fn take(&mut self, key: &IdempotencyKey, job: JobId) -> bool {
        if let Some(held) = self.held.get_mut(key) {
            held.waiting.insert(job);
            return false;
        }
        self.held.insert(key.clone(), Held { by: Holder::Request(job), waiting: BTreeSet::new() });
        true
    }

    /// Passes a request's claim on to the write that has come of it.
    pub(crate) fn pass_on(&mut self, key: &IdempotencyKey, version: Version) {
        if let Some(held) = self.held.get_mut(key) {
            held.by = Holder::Write(version);
        }
    }

    /// A request waits for a key no longer.
    pub(crate) fn leave(&mut self, key: &IdempotencyKey, job: JobId) {
        if let Some(held) = self.held.get_mut(key) {
            held.waiting.remove(&job);
        }
    }

    /// How many requests wait for a key.
    pub(crate) fn waiting(&self) -> usize {
        self.held.values().map(|held| held.waiting.len()).sum()
    }

    /// Ends a claim, if it stands. Returns the requests that wait for the key, in the order of their arrival.
    pub(crate) fn release(&mut self, key: &IdempotencyKey, by: Holder) -> BTreeSet<JobId> {
        if self.held.get(key).is_none_or(|held| held.by != by) {
            return BTreeSet::new();
        }
        self.held.remove(key).map(|held| held.waiting).unwrap_or_default()
    }

    /// Ends all claims but those that stay. Returns the requests that wait for the others, in the order of their arrival.
    pub(crate) fn abandon(&mut self, stays: impl Fn(Holder) -> bool) -> Vec<JobId> {
        let ended = self.held.extract_if(|_, held| !stays(held.by));
        let mut waiting: Vec<_> = ended.flat_map(|(_, held)| held.waiting).collect();
        waiting.sort_unstable();
        waiting
    }
}
