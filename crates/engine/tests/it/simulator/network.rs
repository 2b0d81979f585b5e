//! What travels between nodes, the master and clients, and what happens to it on the way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    cluster::{ChangePartition, Partition},
    peer::FirstOutcome,
};
use cairn_engine::{NodeId, Payload, Replicated};
use cairn_object_tier::SegmentName;
use cairn_replication::{Collected, Header, Member};

use super::{
    bucket::{Ask, Found},
    collecting::Release,
    history::{Call, Reply},
    random::Random,
    tables::Row,
    uploads::Mark,
};

/// A node's number; whoever sends or receives.
pub(crate) type Node = u16;
pub(crate) const MASTER: Node = u16::MAX;
pub(crate) const CLIENTS: Node = u16::MAX - 1;
pub(crate) const BUCKET: Node = u16::MAX - 2;

pub(crate) type Process = Member<NodeId>;

pub(crate) fn name(node: Node) -> String {
    format!("node-{node}")
}

pub(crate) fn node(name: &str) -> Node {
    name.trim_start_matches("node-").parse().unwrap_or(Node::MAX)
}

pub(crate) struct Packet {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    /// To one process of a node, or from one: for an answer, that which was asked.
    Peer(u32, Envelope),
    /// A primary asks for a change of its entry.
    Ask(u32, ChangePartition),
    Heartbeat(Beat),
    /// What has changed in the map since the revision that the node knew.
    Map(News),
    Call(usize, Call),
    Reply(usize, Reply),
    /// A process asks the bucket, by a number of its own; and what it is answered.
    Bucket(u64, u64, Ask),
    Found(u64, u64, Found),
}

pub(crate) struct Envelope {
    pub(crate) from: Process,
    pub(crate) to: Process,
    pub(crate) message: Message,
}

pub(crate) enum Message {
    Append {
        header: Header<NodeId>,
        write: Replicated,
    },
    Appended {
        version: Version,
    },
    AppendRefused {
        failed: bool,
    },
    Renew {
        header: Header<NodeId>,
        sent_at: u64,
    },
    Granted {
        sent_at: u64,
    },
    Leaving,
    Collect {
        header: Header<NodeId>,
        sent_at: u64,
    },
    Collected {
        epoch: u64,
        sent_at: u64,
        collected: Collected<Payload>,
    },
    NoHolder,
    /// What the primary has uploaded.
    Uploaded {
        epoch: u64,
        marks: Vec<Mark>,
    },
    /// Whether a segment may go, as far as the partition is concerned.
    Release(Release),
    Released(Arc<SegmentName>),
    /// The process does not run any more.
    Down,
    Fetch(Fetch),
    Fetched(Fetched),
}

impl Message {
    /// Whether it answers another one, and is for the process that asked only.
    pub(crate) fn is_answer(&self) -> bool {
        !matches!(
            self,
            Self::Append { .. }
                | Self::Renew { .. }
                | Self::Collect { .. }
                | Self::Fetch(_)
                | Self::Uploaded { .. }
                | Self::Release(_)
        )
    }
}

/// A learner, or a new primary, asks for a part of another copy.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    /// The learner's number for its attempt.
    pub(crate) attempt: u64,
    /// The primary's number for the copy; 0: a new one.
    pub(crate) copy: u64,
    pub(crate) epoch: u64,
    pub(crate) part: Part,
    /// A new primary of a quorum asks for what another copy has.
    pub(crate) merges: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Rows above a name.
    Rows(Bytes),
    /// Idempotency keys above a version.
    Keys(Version),
    /// The learner has everything.
    Done,
}

/// What the primary answers.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) attempt: u64,
    pub(crate) page: Page,
}

#[derive(Debug)]
pub(crate) enum Page {
    Rows { copy: u64, rows: Vec<Row>, next: Option<Bytes>, last: Version },
    Keys { keys: Vec<FirstOutcome>, last: Version },
    Heard,
    BeginAgain,
    Refused,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) session: u64,
    /// The first session on its present data.
    pub(crate) data_since: u64,
    pub(crate) seen: usize,
    pub(crate) leaving: bool,
}

pub(crate) struct News {
    /// The process that it is for.
    pub(crate) session: u64,
    pub(crate) revision: usize,
    pub(crate) entries: Vec<Arc<Partition>>,
    pub(crate) sessions: Arc<BTreeMap<Node, u64>>,
}

/// Which ways are cut, and how bad the others are.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) cuts: Vec<(Node, Node)>,
    pub(crate) loss_per_mille: u64,
    pub(crate) slow_per_mille: u64,
}

impl Network {
    /// How long a packet takes; `None` when it is lost.
    pub(crate) fn delay(&self, from: Node, to: Node, random: &mut Random) -> Option<u64> {
        if self.cuts.contains(&(from, to)) || (self.loss_per_mille > 0 && random.chance(self.loss_per_mille)) {
            return None;
        }
        let slow = random.chance(self.slow_per_mille);
        Some(if slow { random.between(5, 2_500) } else { random.between(1, 4) })
    }
}
