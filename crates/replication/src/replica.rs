//! The state of one partition's replica.

use std::{collections::VecDeque, fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::{Entry, Member},
    interface::{Header, Role, Settings, Write},
};

/// A write that is not known to be on every in-sync replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unstable<D> {
    pub(crate) write: Write<D>,
    /// Since when this process has it, or brings it everywhere as the new primary.
    pub(crate) since: u64,
    /// It need not be on this disk before it is acknowledged.
    pub(crate) ahead: bool,
    pub(crate) persisted: bool,
    /// The disk has refused it, and was not asked again.
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
    pub(crate) resent: Resent,
    /// It refused to store a write, or its process has ended.
    pub(crate) failed: bool,
    /// Since when it owes an answer to [`Effect::Collect`].
    pub(crate) collecting_since: Option<u64>,
}

/// What was sent to a peer again last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Resent {
    /// How many writes.
    pub(crate) count: usize,
    /// The newest of them.
    pub(crate) up_to: Version,
    /// How often in succession none of them was answered.
    pub(crate) in_vain: u32,
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
    /// No write that the last takeover found is above it; each of those may have been answered.
    pub(crate) taken_over: Version,
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
    /// The oldest of the writes that this copy has acknowledged and lost.
    pub(crate) lost: Option<Version>,
    /// When writes that the disk has refused may be stored again.
    pub(crate) persist_at: u64,
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
            taken_over: Version::NONE,
            stable: Version::NONE,
            unstable: VecDeque::new(),
            peers: Vec::new(),
            activations: 0,
            promises: Vec::new(),
            lost: None,
            persist_at: 0,
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

    /// Whether this copy's disk has every write up to this version: it may have refused one that was committed before.
    pub fn has_stored(&self, version: Version) -> bool {
        self.unstable.iter().all(|unstable| unstable.persisted || unstable.write.version > version)
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

    /// The oldest of the writes that this copy has acknowledged and lost, until it copies anew or goes on as the last one.
    pub fn lost_write(&self) -> Option<Version> {
        self.lost
    }

    /// How many writes may not be everywhere, and since when the oldest waits.
    pub fn lag(&self) -> (usize, Option<u64>) {
        (self.unstable.len(), self.unstable.front().map(|first| first.since))
    }

    pub(crate) fn header(&self, to: &Member<N>) -> Header<N> {
        Header { primary: self.me.clone(), session: to.session, epoch: self.entry.epoch, stable: self.stable }
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
