//! The state of one partition's replica, and how a new entry changes it.

use std::{collections::VecDeque, fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::entry::{Change, Entry, Member, Place};

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
}

impl Default for Settings {
    fn default() -> Self {
        Self { write_quorum: None, min_in_sync: 1, lease: 3_000, promise: 4_000, renew: 500, retry: 300, late: 1_500 }
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
    /// It is the primary, and cannot store writes: another one must be.
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
    /// Send a write to a peer; tell [`Replica::acknowledge`] or [`Replica::refused`] what it answers.
    Append {
        /// The peer.
        to: Member<N>,
        /// What to send with it.
        header: Header<N>,
        /// The write.
        write: Write<D>,
    },
    /// Ask a peer for a lease; tell [`Replica::granted`] when it gives it.
    Renew {
        /// The peer.
        to: Member<N>,
        /// What to send.
        header: Header<N>,
        /// The time to give back.
        sent_at: u64,
    },
    /// Ask a peer, or a former primary, for its unstable writes; tell [`Replica::collected`] what it answers, or
    /// [`Replica::no_holder`] when it is [`Refusal::NotHolder`].
    Collect {
        /// The peer.
        to: Member<N>,
        /// What to send.
        header: Header<N>,
        /// The time to give back.
        sent_at: u64,
    },
    /// Store a write that may be missing here; tell [`Replica::persisted`].
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
}

/// Why a peer's message is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A later epoch is known here.
    Stale(u64),
    /// It was meant for another process of this node, or this node is no holder: and it does not lead at an earlier epoch.
    NotHolder,
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

/// A write that is not known to be on every in-sync replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unstable<D> {
    pub(crate) write: Write<D>,
    /// When it was proposed, or last sent.
    pub(crate) since: u64,
    /// It need not be on this disk before it is acknowledged.
    pub(crate) ahead: bool,
    pub(crate) persisted: bool,
    pub(crate) failed: bool,
    /// The slots of the peers that have it.
    pub(crate) acks: u32,
}

/// Somebody whose acknowledgement is required.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer<N> {
    pub(crate) member: Member<N>,
    /// Its bit in the acknowledgements.
    pub(crate) slot: u32,
    pub(crate) in_sync: bool,
    /// Since when its leases are counted on.
    pub(crate) in_sync_since: u64,
    /// The number of a learner's present copy.
    pub(crate) activation: u64,
    /// A learner that says it has everything, and the highest version that may be in its copy.
    pub(crate) copied: Option<Version>,
    /// The store was asked to make it in-sync, and may have done so.
    pub(crate) joins: bool,
    pub(crate) lease_until: u64,
    pub(crate) renew_at: u64,
    pub(crate) resend_at: u64,
    /// It refused to store a write, or its process has ended.
    pub(crate) failed: bool,
    /// Since when it owes an answer to [`Effect::Collect`].
    pub(crate) collecting_since: Option<u64>,
}

/// See the [crate].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica<N, D> {
    pub(crate) me: Member<N>,
    pub(crate) settings: Settings,
    pub(crate) entry: Entry<N>,
    /// The highest epoch heard of: nothing is done for a lower one any more.
    pub(crate) fence: u64,
    /// The epoch since which it has been what it is in the entry without a break: earlier messages are not for it.
    pub(crate) since: u64,
    pub(crate) role: Role,
    /// The highest version heard of.
    pub(crate) last: Version,
    /// Every write up to it may be seen. Means something only while this replica is the primary.
    pub(crate) committed: Version,
    /// Every write up to it is on every in-sync replica.
    pub(crate) stable: Version,
    /// Writes above `stable`, in the order of versions.
    pub(crate) unstable: VecDeque<Unstable<D>>,
    pub(crate) peers: Vec<Peer<N>>,
    /// Copies that learners have begun.
    pub(crate) activations: u64,
    /// To whom this replica has promised not to take the primary's place, and until when. What one of them says later
    /// does not end what was promised to another.
    pub(crate) promises: Vec<(Member<N>, u64)>,
    /// When the store may be asked again.
    pub(crate) ask_at: u64,
    /// When a former primary that is no peer may be asked again whether it knows that it is none any more.
    pub(crate) confirm_at: u64,
}

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// A replica that knows of no entry.
    pub fn new(me: Member<N>, settings: Settings) -> Self {
        Self {
            me,
            settings,
            entry: Entry::default(),
            fence: 0,
            since: 0,
            role: Role::Idle,
            last: Version::NONE,
            committed: Version::NONE,
            stable: Version::NONE,
            unstable: VecDeque::new(),
            peers: Vec::new(),
            activations: 0,
            promises: Vec::new(),
            ask_at: 0,
            confirm_at: 0,
        }
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The newest entry that it knows.
    pub fn entry(&self) -> &Entry<N> {
        &self.entry
    }

    /// The highest epoch that it has heard of.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// The highest version that it has heard of.
    pub fn last(&self) -> Version {
        self.last
    }

    /// As the primary: every write up to this version may be seen.
    pub fn committed(&self) -> Version {
        self.committed
    }

    /// Every write up to this version is on every in-sync replica.
    pub fn stable(&self) -> Version {
        self.stable
    }

    /// Changes the rules; times take effect with the next event.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The process began at `since` and does not know what the node's former one had promised: it takes nobody's place
    /// before that is over.
    pub fn restarted(&mut self, since: u64) {
        self.promises.push((self.me.clone(), since + self.settings.promise));
    }

    /// Takes note of a version that the data here have.
    pub fn observe(&mut self, version: Version) {
        self.last = self.last.max(version);
    }

    /// How many writes may not be everywhere, and since when the oldest waits.
    pub fn lag(&self) -> (usize, Option<u64>) {
        (self.unstable.len(), self.unstable.front().map(|first| first.since))
    }

    /// Takes over an entry. Returns whether it is news.
    pub fn configure(&mut self, entry: Entry<N>, now: u64, out: &mut Vec<Effect<N, D>>) -> bool {
        if entry.epoch <= self.entry.epoch || entry.epoch < self.fence {
            return false;
        }
        self.fence = entry.epoch;
        self.ask_at = 0;
        let before = std::mem::replace(&mut self.entry, entry);
        let skipped = self.entry.epoch > before.epoch + 1;
        match self.entry.place(&self.me) {
            // Meanwhile the successor may have been the primary.
            Place::Primary
                if self.role.leads() && !(skipped && self.role == Role::HandingOver) && self.knows_in_sync() =>
            {
                self.keep_leading(skipped, now, out);
            }
            Place::Primary => {
                self.stop_leading(out);
                self.role = Role::Preparing;
            }
            Place::InSync => {
                self.stop_leading(out);
                if self.role == Role::Learner {
                    // The primary that it learned from served after this process began, so none before that one does:
                    // what the node's former process promised is over.
                    let me = &self.me.node;
                    self.promises.retain(|(to, _)| to.node != *me);
                }
                self.role = Role::Replica;
            }
            Place::Learner => {
                self.stop_leading(out);
                // What a learner was sent counts only together with what it copied from the same primary.
                if self.role != Role::Learner || before.primary_process() != self.entry.primary_process() {
                    self.forget();
                }
                self.role = Role::Learner;
            }
            Place::None => {
                self.stop_leading(out);
                self.forget();
                self.role = Role::Idle;
            }
        }
        true
    }

    /// A later process of the node has been heard of: nothing need be kept of what was promised to `ended` and to those
    /// before it, and none of them acknowledges anything any more.
    pub fn session_ended(&mut self, ended: &Member<N>, now: u64, out: &mut Vec<Effect<N, D>>) {
        let has_ended = |process: &Member<N>| process.node == ended.node && process.session <= ended.session;
        self.promises.retain(|(to, _)| !has_ended(to));
        self.peers.iter_mut().filter(|peer| has_ended(&peer.member)).for_each(|peer| peer.failed = true);
        self.end_takeover(now, out);
        self.look_after_peers(now, out);
    }

    /// Whether every other in-sync process gets the writes of this one already.
    fn knows_in_sync(&self) -> bool {
        self.role == Role::Preparing
            || self.entry.in_sync.iter().all(|m| *m == self.me || self.peers.iter().any(|peer| peer.member == *m))
    }

    pub(crate) fn header(&self, to: &Member<N>) -> Header<N> {
        Header { primary: self.me.clone(), session: to.session, epoch: self.entry.epoch, stable: self.stable }
    }

    pub(crate) fn stop_leading(&mut self, out: &mut Vec<Effect<N, D>>) {
        if self.role.leads() {
            out.push(Effect::Abandoned);
        }
        self.peers.clear();
    }

    fn forget(&mut self) {
        self.since = self.entry.epoch;
        self.unstable.clear();
        self.stable = Version::NONE;
    }

    /// Adds a write, unless it is there or known to be everywhere.
    pub(crate) fn note(&mut self, write: Write<D>, now: u64) {
        self.last = self.last.max(write.version);
        if write.version <= self.stable {
            return;
        }
        if let Err(index) = self.unstable.binary_search_by_key(&write.version, |known| known.write.version) {
            let unstable = Unstable { write, since: now, ahead: false, persisted: false, failed: false, acks: 0 };
            self.unstable.insert(index, unstable);
        }
    }

    pub(crate) fn set_stable(&mut self, stable: Version) {
        self.stable = self.stable.max(stable);
        while self.unstable.front().is_some_and(|first| first.write.version <= self.stable) {
            self.unstable.pop_front();
        }
    }
}
