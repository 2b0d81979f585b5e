//! What the nodes of a model or a simulation send to one another and to the metadata store.

use cairn_api_spec::Version;
use cairn_replication::{Change, Collected, Header, Member, Write};

/// A node's name.
pub(crate) type Node = u16;
/// A key of a partition.
pub(crate) type Key = u16;
/// One process of a node.
pub(crate) type Process = Member<Node>;

/// What is kept of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// The number of the operation that wrote it.
    pub(crate) operation: u32,
    /// It is acknowledged before it is on a disk.
    pub(crate) ahead: bool,
}

/// A message between two processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Envelope {
    pub(crate) from: Process,
    pub(crate) to: Process,
    pub(crate) message: Message,
}

/// A request, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Append {
        header: Header<Node>,
        write: Write<Row>,
    },
    Appended {
        version: Version,
    },
    /// A write or a lease is refused.
    Refused {
        failed: bool,
    },
    Renew {
        header: Header<Node>,
        sent_at: u64,
    },
    Renewed {
        sent_at: u64,
    },
    Collect {
        header: Header<Node>,
        sent_at: u64,
    },
    Collected {
        epoch: u64,
        sent_at: u64,
        writes: Vec<Write<Row>>,
        stable: Version,
        last: Version,
    },
    /// The receiver is no holder, or the process that was asked has ended.
    NoHolder,
    /// A learner begins a copy.
    Begin {
        attempt: u32,
        epoch: u64,
    },
    /// A learner asks for the rows above a key.
    Fetch {
        attempt: u32,
        activation: u64,
        above: Key,
    },
    Page {
        attempt: u32,
        activation: u64,
        rows: Vec<Write<Row>>,
        is_last: bool,
    },
    /// The primary does not serve this copy; with `begin_again` the learner is to make another one.
    FetchRefused {
        attempt: u32,
        activation: u64,
        begin_again: bool,
    },
    /// A learner has the last page on its disk.
    Copied {
        attempt: u32,
        activation: u64,
    },
}

impl Message {
    pub(crate) fn collected(epoch: u64, sent_at: u64, collected: Collected<Row>) -> Self {
        let Collected { writes, stable, last } = collected;
        Self::Collected { epoch, sent_at, writes, stable, last }
    }

    /// Whether it makes the receiver store or promise something.
    pub(crate) fn needs_follower(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Renew { .. })
    }

    /// Whether it means something only to the process that it was sent to.
    pub(crate) fn needs_process(&self) -> bool {
        !matches!(self, Self::Append { .. } | Self::Renew { .. } | Self::Collect { .. })
    }
}

/// What a primary asks of the metadata store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) from: Process,
    pub(crate) epoch: u64,
    pub(crate) change: Change<Node>,
}

/// What an event at a node has led to.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) sent: Vec<Envelope>,
    pub(crate) asked: Vec<Request>,
    /// Writes whose clients get a good answer.
    pub(crate) acknowledged: Vec<Version>,
    /// Writes whose clients learn that nothing has happened.
    pub(crate) undone: Vec<Version>,
    /// The last copy goes on without writes that it had acknowledged.
    pub(crate) lost: bool,
}
