//! Which copies come forward. A copy counts as one that is being made only while its bytes grow, and one that stands
//! still for too long is given up: it would hold back others, and the deletions that must be kept until it is complete.
//!
//! Times count from any fixed moment.

use std::{collections::HashMap, time::Duration};

use cairn_api_spec::cluster::Transfer;

/// A complete copy may wait so many times longer than one that stands still: only its primary can say that it is in sync.
const WAIT_OF_COMPLETE: u32 = 10;

/// What is seen of one copy.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The partition.
    pub partition: u32,
    /// The learner.
    pub node: &'a str,
    /// The learner's session.
    pub session: u64,
    /// The node that it copies from.
    pub primary: &'a str,
    /// What the learner last said of the copy, if anything.
    pub transfer: Option<Transfer>,
    /// Whether both nodes are there. Otherwise nothing is expected.
    pub can_move: bool,
}

/// What is expected of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Without progress for so long, a copy is stuck.
    pub stuck_after: Duration,
    /// The most bytes a second that one node copies, for all partitions together; 0: no limit.
    pub bytes_per_second: u64,
    /// The most bytes that a learner fetches at once: it reports nothing in between.
    pub page_bytes: u64,
}

/// How a copy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headway {
    /// It comes forward, or has had no time to.
    Moving,
    /// It has stood still for a while, or is complete and waits to be taken in sync: others need not wait for it.
    Waiting,
    /// It is to be given up.
    Stuck,
}

/// The copies that are being made, from one look at them to the next.
#[derive(Debug, Default)]
pub struct Copies {
    watched: HashMap<(u32, String), Watched>,
    stuck_after: Duration,
}

#[derive(Clone, Debug)]
struct Watched {
    session: u64,
    primary: String,
    /// The most that it has reported.
    bytes: u64,
    complete: bool,
    /// When it last came forward.
    since: Duration,
    /// How long the limit may have kept it from coming forward since then. It does not shrink when the limit is
    /// raised: the learner is in the pause that the former one imposed.
    held_back: Duration,
}

impl Copies {
    /// Looks at all copies that are being made. Those that are not among them are forgotten.
    pub fn observe(&mut self, copies: &[Seen<'_>], expected: Expected, now: Duration) {
        self.stuck_after = expected.stuck_after;
        let mut on_node: HashMap<&str, u32> = HashMap::new();
        for copy in copies {
            *on_node.entry(copy.node).or_default() += 1;
        }
        let mut former = std::mem::take(&mut self.watched);
        for copy in copies {
            let held_back = expected.pause(on_node.get(copy.node).copied().unwrap_or(1));
            let key = (copy.partition, copy.node.to_owned());
            // From another primary, or by another process, a copy begins anew.
            let is_same = |known: &Watched| known.session == copy.session && known.primary == copy.primary;
            let known = former.remove(&key).filter(is_same);
            self.watched.insert(key, Watched::after(known, copy, held_back, now));
        }
    }

    /// How the learner's copy of a partition does.
    pub fn headway(&self, partition: u32, node: &str, now: Duration) -> Headway {
        let Some(copy) = self.watched.get(&(partition, node.to_owned())) else { return Headway::Moving };
        let still = now.saturating_sub(copy.since.saturating_add(copy.held_back));
        let longest = if copy.complete { self.stuck_after * WAIT_OF_COMPLETE } else { self.stuck_after };
        if still >= longest {
            Headway::Stuck
        } else if copy.complete || still >= self.stuck_after / 4 {
            Headway::Waiting
        } else {
            Headway::Moving
        }
    }
}

impl Watched {
    fn after(known: Option<Self>, copy: &Seen<'_>, held_back: Duration, now: Duration) -> Self {
        let reported = copy.transfer.map_or(0, |transfer| transfer.bytes);
        let was_complete = known.as_ref().is_some_and(|known| known.complete);
        let complete = copy.transfer.map_or(was_complete, |transfer| transfer.complete);
        let new = Self {
            session: copy.session,
            primary: copy.primary.to_owned(),
            bytes: reported,
            complete,
            since: now,
            held_back,
        };
        let Some(known) = known else { return new };
        // One that fails and begins again, over and over, does not come forward.
        let bytes = known.bytes.max(reported);
        if !copy.can_move || bytes > known.bytes || complete && !was_complete {
            return Self { bytes, ..new };
        }
        Self { complete, held_back: known.held_back.max(held_back), ..known }
    }
}

impl Expected {
    /// How long a node with so many copies may take, at its limit, until each of them has one page more, and as long
    /// again for what delays it besides.
    fn pause(self, copies: u32) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let bytes = u128::from(self.page_bytes) * u128::from(copies) * 2;
        let millis = bytes.saturating_mul(1_000) / u128::from(self.bytes_per_second);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}
