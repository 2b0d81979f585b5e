//! A registered node: what stands in the store, and what this process has heard of it.

use std::time::{Duration, Instant};

use cairn_api_spec::cluster::{Heartbeat, NodeState, NodeStats, RegisterNode, Transfer};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::metastore::Revision;

/// How long a node that was started anew may be bound by what it promised before: the leases that nodes give each
/// other hold for so long.
const PROMISE: Duration = Duration::from_secs(4);

/// When silence means something.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silent for so long, a node is suspected and gets nothing new.
    pub suspect_after: Duration,
    /// Silent for so long, it counts as crashed.
    pub gone_after: Duration,
    /// Silent for so long, its copies are made elsewhere.
    pub replace_after: Duration,
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
    heard: Instant,
    /// When it was heard again after a silence.
    back_since: Option<Instant>,
    session_since: Instant,
    leaving: bool,
    /// When it last beat, by the wall clock; `None` when this process has not heard it.
    pub last_heartbeat: Option<Timestamp>,
    /// What it last said of itself.
    pub stats: NodeStats,
    /// What it is copying.
    pub transfers: Vec<Transfer>,
}

impl Member {
    pub(super) fn new(record: NodeRecord, revision: Revision) -> Self {
        let now = Instant::now();
        Self {
            record,
            revision,
            heard: now,
            back_since: None,
            session_since: now,
            leaving: false,
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

    /// How long it has not been heard.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Whether it was heard within the suspicion time.
    pub fn is_alive(&self, patience: Patience) -> bool {
        self.silence() < patience.suspect_after
    }

    /// Whether it is alive and, after a silence, has been so for the suspicion time: a node that comes and goes must
    /// not make partitions come and go.
    pub fn is_steady(&self, patience: Patience) -> bool {
        self.is_alive(patience) && self.back_since.is_none_or(|back| back.elapsed() >= patience.suspect_after)
    }

    /// Whether nothing that an earlier process of this node promised holds any more.
    pub fn is_settled(&self) -> bool {
        self.session_since.elapsed() >= PROMISE
    }

    /// Where it stands, as the holder of so many copies.
    pub fn state(&self, patience: Patience, copies: u32) -> NodeState {
        let silence = self.silence();
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

    pub(super) fn hear(&mut self, patience: Patience) {
        let now = Instant::now();
        if !self.is_alive(patience) {
            self.back_since = Some(now);
        }
        self.heard = now;
    }

    /// Takes note of a heartbeat. Returns whether the controller should look at once.
    pub(super) fn beat(&mut self, heartbeat: Heartbeat, patience: Patience) -> bool {
        let news = heartbeat.leaving != self.leaving || !self.is_alive(patience);
        self.hear(patience);
        self.last_heartbeat = Some(Timestamp::now());
        self.leaving = heartbeat.leaving;
        self.stats = heartbeat.stats;
        self.transfers = heartbeat.transfers;
        news
    }

    /// Takes what it registers with now. What an earlier process said does not count for a new one.
    pub(super) fn register(&mut self, record: NodeRecord, revision: Revision, patience: Patience) {
        let (known, new) = (&self.record.node, &record.node);
        if (known.incarnation, known.session) != (new.incarnation, new.session) {
            self.session_since = Instant::now();
            self.leaving = false;
            self.transfers.clear();
        }
        (self.record, self.revision) = (record, revision);
        self.hear(patience);
    }
}
