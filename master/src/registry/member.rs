//! A registered node: what stands in the store, and what this process has heard of it.

use std::time::Duration;

use cairn_api_spec::cluster::{Heartbeat, NodeState, NodeStats, RegisterNode, Transfer};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::metastore::Revision;

/// How long a node that was started anew may be bound by what it promised before: the leases that nodes give each
/// other hold for so long.
const PROMISE: Duration = Duration::from_secs(4);

/// What is put up with: when silence means something, and how far a clock may be off.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silent for so long, a node is suspected and gets nothing new.
    pub suspect_after: Duration,
    /// Silent for so long, it counts as crashed.
    pub gone_after: Duration,
    /// Silent for so long, its copies are made elsewhere.
    pub replace_after: Duration,
    /// With a wall clock farther from the master's, it must not lead.
    pub max_clock_skew: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) node: RegisterNode,
    pub(super) draining: bool,
}

/// A registered node.
#[derive(Clone, Debug)]
pub struct Member {
    pub(super) record: NodeRecord,
    pub(super) revision: Revision,
    /// When it was last heard. This and all other times count from the start of the master.
    heard: Duration,
    /// When it was heard again after a silence.
    back_since: Option<Duration>,
    session_since: Duration,
    leaving: bool,
    clock_off: bool,
    /// Milliseconds by which its wall clock is ahead of the master's, as it last said.
    pub clock_offset_ms: Option<i64>,
    /// When it last beat, by the wall clock; `None` when this process has not heard it.
    pub last_heartbeat: Option<Timestamp>,
    /// What it last said of itself.
    pub stats: NodeStats,
    /// What it is copying.
    pub transfers: Vec<Transfer>,
}

impl Member {
    pub(super) fn new(record: NodeRecord, revision: Revision, now: Duration) -> Self {
        Self {
            record,
            revision,
            heard: now,
            back_since: None,
            session_since: now,
            leaving: false,
            clock_off: false,
            clock_offset_ms: None,
            last_heartbeat: None,
            stats: NodeStats::default(),
            transfers: Vec::new(),
        }
    }

    /// What it registered with.
    pub fn registration(&self) -> &RegisterNode {
        &self.record.node
    }

    /// Whether it is to leave for good, once others have what it holds.
    pub fn is_draining(&self) -> bool {
        self.record.draining
    }

    /// Whether it said that it is about to stop.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether its wall clock is too far from the master's: it must not lead.
    pub fn is_clock_off(&self) -> bool {
        self.clock_off
    }

    /// How long it has not been heard.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// Whether it was heard within the suspicion time.
    pub fn is_alive(&self, patience: Patience, now: Duration) -> bool {
        self.silence(now) < patience.suspect_after
    }

    /// Whether it is alive and, after a silence, has been so for the suspicion time: a node that comes and goes must
    /// not make partitions come and go.
    pub fn is_steady(&self, patience: Patience, now: Duration) -> bool {
        let has_stayed = |back| now.saturating_sub(back) >= patience.suspect_after;
        self.is_alive(patience, now) && self.back_since.is_none_or(has_stayed)
    }

    /// Whether nothing that an earlier process of this node promised holds any more.
    pub fn is_settled(&self, now: Duration) -> bool {
        now.saturating_sub(self.session_since) >= PROMISE
    }

    /// Where it stands, as the holder of so many copies.
    pub fn state(&self, patience: Patience, copies: u32, now: Duration) -> NodeState {
        let silence = self.silence(now);
        if self.record.draining {
            NodeState::Draining
        } else if silence >= patience.gone_after {
            NodeState::Gone
        } else if silence >= patience.suspect_after {
            NodeState::Suspect
        } else if self.leaving {
            NodeState::Draining
        } else if copies == 0 {
            NodeState::Joining
        } else {
            NodeState::Active
        }
    }

    pub(super) fn hear(&mut self, patience: Patience, now: Duration) {
        if !self.is_alive(patience, now) {
            self.back_since = Some(now);
        }
        self.heard = self.heard.max(now);
    }

    /// Takes note of a heartbeat. Returns whether the controller should look at once.
    pub(super) fn beat(&mut self, heartbeat: Heartbeat, patience: Patience, now: Duration, wall: Timestamp) -> bool {
        let was_off = self.clock_off;
        // One that cannot tell just now, since it was just started, has the clock that it had.
        if let Some(offset) = heartbeat.clock_offset_ms {
            self.clock_offset_ms = Some(offset);
            self.clock_off = is_off(offset, patience.max_clock_skew, was_off);
        }
        let news = heartbeat.leaving != self.leaving || self.clock_off != was_off || !self.is_alive(patience, now);
        self.hear(patience, now);
        self.last_heartbeat = Some(wall);
        self.leaving = heartbeat.leaving;
        self.stats = heartbeat.stats;
        self.transfers = heartbeat.transfers;
        news
    }

    /// Takes what it registers with now. What an earlier process said does not count for a new one.
    pub(super) fn register(&mut self, record: NodeRecord, revision: Revision, patience: Patience, now: Duration) {
        let (known, new) = (&self.record.node, &record.node);
        if (known.incarnation, known.session) != (new.incarnation, new.session) {
            self.session_since = now;
            self.leaving = false;
            self.transfers.clear();
        }
        if known.address != new.address {
            (self.clock_offset_ms, self.clock_off) = (None, false);
        }
        (self.record, self.revision) = (record, revision);
        self.hear(patience, now);
    }
}

/// Whether a clock is off. One that was must come back to half of what is allowed, so that primaries do not come and
/// go with a clock that is just at the limit.
fn is_off(offset_ms: i64, allowed: Duration, was_off: bool) -> bool {
    let allowed = if was_off { allowed / 2 } else { allowed };
    u128::from(offset_ms.unsigned_abs()) > allowed.as_millis()
}
