//! Nodes that failed a partition, and when they are tried again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// How long a node is not tried again for a partition whose primary gave it up, or that it gave up as the primary.
const LATE: Duration = Duration::from_secs(5);
/// The same after a copy that was stuck: at first, and doubled with each further one up to the second.
const STUCK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30 * 60));
/// Failures that are remembered.
const MAX_FAILURES: usize = 65_536;

/// What a node's failure at a partition leads to.
#[derive(Clone, Copy, Debug)]
struct Failure {
    /// A process that was started later begins without it.
    session: u64,
    until: Duration,
    /// Copies of the partition that were stuck, one after the other.
    stuck: u32,
}

/// Failures, by partition and node.
#[derive(Default)]
pub(super) struct Failures {
    known: HashMap<(u32, String), Failure>,
}

impl Failures {
    /// The node did not acknowledge, or gave the partition up as its primary.
    pub(super) fn late(&mut self, partition: u32, node: &str, session: u64, now: Duration) {
        self.note(partition, node, session, now, |failure| failure.until = failure.until.max(now + LATE));
    }

    /// The node's copy of the partition was stuck.
    pub(super) fn stuck(&mut self, partition: u32, node: &str, session: u64, now: Duration) {
        self.note(partition, node, session, now, |failure| {
            let doubled = STUCK.0.saturating_mul(1_u32.checked_shl(failure.stuck).unwrap_or(u32::MAX));
            failure.until = now + doubled.min(STUCK.1);
            failure.stuck += 1;
        });
    }

    /// The node came in sync with the partition.
    pub(super) fn forget(&mut self, partition: u32, node: &str) {
        self.known.remove(&(partition, node.to_owned()));
    }

    /// Whether the node is not to be tried now.
    pub(super) fn has(&self, partition: u32, node: &str, session: u64, now: Duration) -> bool {
        self.known.get(&(partition, node.to_owned())).is_some_and(|failure| failure.holds(session, now))
    }

    /// The partitions of which each node's copies were stuck lately, while it has the session that `session` says.
    pub(super) fn stuck_copies(
        &self,
        session: impl Fn(&str) -> Option<u64>,
        now: Duration,
    ) -> BTreeMap<&str, BTreeSet<u32>> {
        let mut stuck: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for ((partition, node), failure) in &self.known {
            if failure.stuck > 0 && session(node).is_some_and(|session| failure.holds(session, now)) {
                stuck.entry(node).or_default().insert(*partition);
            }
        }
        stuck
    }

    fn note(&mut self, partition: u32, node: &str, session: u64, now: Duration, change: impl FnOnce(&mut Failure)) {
        // Those that are over still count for the next pause, for a while.
        self.known.retain(|_, failure| now < failure.until + if failure.stuck > 0 { STUCK.1 } else { Duration::ZERO });
        let key = (partition, node.to_owned());
        if self.known.len() >= MAX_FAILURES && !self.known.contains_key(&key) {
            return;
        }
        let new = Failure { session, until: Duration::ZERO, stuck: 0 };
        let failure = self.known.entry(key).or_insert(new);
        if failure.session != session {
            *failure = new;
        }
        change(failure);
    }
}

impl Failure {
    fn holds(&self, session: u64, now: Duration) -> bool {
        self.session == session && now < self.until
    }
}
