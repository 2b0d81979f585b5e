//! What goes into a replica and comes out of it: rules, roles, effects, messages, refusals.

use cairn_api_spec::Version;

use crate::entry::{Change, Member};

/// The rules and times of the protocol; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Copies, the primary's included, that must have a write before it is acknowledged; `None`: every in-sync one.
    pub write_quorum: Option<usize>,
    /// With fewer in-sync copies no write is taken.
    pub min_in_sync: usize,
    /// How long a primary counts on a lease, from the moment when it asked for it.
    pub lease: u64,
    /// How long a replica keeps its promise, from the moment when it gave it: longer than `lease`, by more than clocks
    /// may drift apart meanwhile.
    pub promise: u64,
    /// How often leases are renewed.
    pub renew: u64,
    /// When what was not answered is sent or asked again.
    pub retry: u64,
    /// A peer that owes an answer for so long is given up: shorter than `lease` by more than `renew`.
    pub late: u64,
    /// The same for an in-sync peer that no write waits for, because others are a quorum: several times `late`.
    pub patience: u64,
    /// A primary whose own disk owes an answer for so long lets another copy take over.
    pub disk_late: u64,
    /// Writes that are sent again to a peer, or stored again here, at a time. Fewer, down to one, are sent to a peer
    /// that answers none of them.
    pub window: usize,
    /// Writes that may not be everywhere, at most: then no more are taken. When there are half as many, an in-sync peer
    /// that owes the oldest is given up after `late`, even if no write waits for it.
    pub most_unstable: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            write_quorum: None,
            min_in_sync: 1,
            lease: 3_000,
            promise: 4_000,
            renew: 500,
            retry: 300,
            late: 1_500,
            patience: 10_000,
            disk_late: 5_000,
            window: 512,
            most_unstable: 65_536,
        }
    }
}

/// What this replica is to the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nothing.
    Idle,
    /// It is being brought up to date.
    Learner,
    /// It holds every acknowledged write.
    Replica,
    /// It is to be the primary, and its data are not there yet.
    Preparing,
    /// It is to be the primary, and asks the others for writes that may not be everywhere.
    Collecting,
    /// It is to be the primary, and brings those writes everywhere.
    Syncing,
    /// It is the primary, and cannot store writes or has lost some: another one must be.
    Failing,
    /// It is the primary.
    Serving,
    /// It is the primary, answers reads, and takes no writes, so that another one can be.
    HandingOver,
}

impl Role {
    /// Whether the map makes it the primary.
    pub fn leads(self) -> bool {
        self >= Self::Preparing
    }

    /// Whether it answers reads, as long as it has its leases.
    pub fn reads(self) -> bool {
        self >= Self::Serving
    }
}

/// What the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<N, D> {
    /// Send a write to a peer; tell [`Replica::acknowledge`](crate::Replica::acknowledge) or [`Replica::refused`](crate::Replica::refused) what it answers.
    Append {
        /// The peer.
        to: Member<N>,
        /// What to send with it.
        header: Header<N>,
        /// The write.
        write: Write<D>,
    },
    /// Ask a peer for a lease; tell [`Replica::granted`](crate::Replica::granted) when it gives it.
    Renew {
        /// The peer.
        to: Member<N>,
        /// What to send.
        header: Header<N>,
        /// The time to give back.
        sent_at: u64,
    },
    /// Ask a peer, or a former primary, for its unstable writes; tell [`Replica::collected`](crate::Replica::collected) what it answers, or
    /// [`Replica::no_holder`](crate::Replica::no_holder) when it is [`Refusal::NotHolder`].
    Collect {
        /// The peer.
        to: Member<N>,
        /// What to send.
        header: Header<N>,
        /// The time to give back.
        sent_at: u64,
    },
    /// Store a write that may be missing here; tell [`Replica::persisted`](crate::Replica::persisted) or [`Replica::persist_failed`](crate::Replica::persist_failed).
    Persist(Write<D>),
    /// The write is committed: it may be seen and answered. Comes in the order of versions.
    Committed(Write<D>),
    /// Of the writes that were proposed here and are not committed, nobody knows what becomes.
    Abandoned,
    /// Ask the metadata store for a change of the entry with this epoch; a new entry is the answer.
    Ask {
        /// The epoch that the entry must still have.
        epoch: u64,
        /// What to change.
        change: Change<N>,
    },
    /// This copy is the last one and goes on without writes that it had acknowledged, of which this is the oldest: older
    /// values may be read. To be counted, and told to whoever runs the cluster.
    Lost(Version),
    /// An entry was not followed, because no version can have its epoch. To be told to whoever runs the cluster.
    EpochTooHigh(u64),
}

/// What stands on every message of a primary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Header<N> {
    /// The primary.
    pub primary: Member<N>,
    /// The session of the receiver that it is meant for.
    pub session: u64,
    /// The epoch of the primary's entry.
    pub epoch: u64,
    /// Every write up to this version is on every in-sync replica.
    pub stable: Version,
}

/// A write and its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write<D> {
    /// The version.
    pub version: Version,
    /// What the caller keeps of it.
    pub data: D,
}

/// Why no write is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServing {
    /// This replica is not, or not yet, or not any more the primary that takes writes.
    Role(Role),
    /// Too few copies are in sync.
    BelowMinInSync {
        /// How many are.
        in_sync: usize,
        /// How many must be.
        required: usize,
    },
    /// [`Settings::most_unstable`] writes are not everywhere.
    TooManyUnstable,
    /// There is no further version.
    NoVersionLeft,
}

/// Why a peer's message is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A later epoch is known here.
    Stale(u64),
    /// It was meant for another process of this node, or this process is no holder: and it does not lead at an earlier
    /// epoch.
    NotHolder,
    /// This copy has lost a write that it had acknowledged, and must be given up: the primary is to be told
    /// [`Replica::refused`](crate::Replica::refused) with `failed`, or after [`Effect::Collect`] [`Replica::no_holder`](crate::Replica::no_holder).
    Failed,
}

/// What a replica tells a new primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected<D> {
    /// The writes above `stable`.
    pub writes: Vec<Write<D>>,
    /// Every write up to this version is on every in-sync replica.
    pub stable: Version,
    /// The highest version heard of.
    pub last: Version,
}
