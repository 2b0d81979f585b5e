//! What a primary does: it numbers writes, counts acknowledgements, keeps leases, and looks after its peers.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::Member,
    interface::{Effect, NotServing, Role, Write},
    replica::{Peer, Replica, Resent, Unstable},
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// Takes a write: gives it a version above `floor` and all earlier ones, and sends it to every peer. The caller stores
    /// it and tells [`Replica::persisted`], or [`Replica::persist_failed`]. With `ahead` it may be committed before that.
    ///
    /// # Errors
    /// [`NotServing`]; then nothing has happened.
    pub fn propose(
        &mut self,
        floor: Version,
        ahead: bool,
        now: u64,
        out: &mut Vec<Effect<N, D>>,
        data: impl FnOnce(Version) -> D,
    ) -> Result<Version, NotServing> {
        self.check_serving()?;
        let version = self.last.max(floor).next(self.entry.epoch).ok_or(NotServing::NoVersionLeft)?;
        self.last = version;
        let write = Write { version, data: data(version) };
        self.send(&write, out);
        self.unstable.push_back(Unstable { write, since: now, ahead, persisted: false, failed: false, acks: 0 });
        self.advance(out);
        Ok(version)
    }

    /// Whether a write would be taken now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_serving(&self) -> Result<(), NotServing> {
        if self.role != Role::Serving {
            return Err(NotServing::Role(self.role));
        }
        let (in_sync, required) = (self.entry.in_sync.len(), self.required_copies());
        if in_sync < required {
            return Err(NotServing::BelowMinInSync { in_sync, required });
        }
        if self.unstable.len() >= self.settings.most_unstable {
            return Err(NotServing::TooManyUnstable);
        }
        self.last.next(self.entry.epoch).ok_or(NotServing::NoVersionLeft).map(|_| ())
    }

    /// Until when reads may be answered, if the role lets them: the end of the first lease to run out.
    pub fn lease_until(&self) -> u64 {
        if !self.role.reads() {
            return 0;
        }
        let counts = |peer: &&Peer<N>| peer.in_sync || peer.joins;
        self.peers.iter().filter(counts).map(|peer| peer.lease_until).min().unwrap_or(u64::MAX)
    }

    /// A peer has stored a write.
    pub fn acknowledge(&mut self, from: &Member<N>, version: Version, out: &mut Vec<Effect<N, D>>) {
        let Some(slot) = self.peer(from).map(|peer| peer.slot) else { return };
        if let Some(unstable) = self.find(version) {
            unstable.acks |= 1 << slot;
            self.advance(out);
        }
    }

    /// A peer did not take a write, because it knows a later epoch, or (`failed`) because it cannot store it. The first
    /// is explained by the entry that is on its way.
    pub fn refused(&mut self, from: &Member<N>, failed: bool, now: u64, out: &mut Vec<Effect<N, D>>) {
        if let Some(peer) = self.peer(from).filter(|_| failed) {
            peer.failed = true;
            self.look_after_peers(now, out);
        }
    }

    /// A peer has given the lease that was asked for at `sent_at`.
    pub fn granted(&mut self, from: &Member<N>, sent_at: u64) {
        let until = sent_at + self.settings.lease;
        if let Some(peer) = self.peer(from) {
            peer.lease_until = peer.lease_until.max(until);
        }
    }

    /// The entry changed, and this replica is still the primary.
    pub(crate) fn keep_leading(&mut self, skipped: bool, now: u64, out: &mut Vec<Effect<N, D>>) {
        let entry = &self.entry;
        self.peers.retain_mut(|peer| {
            let in_sync = entry.in_sync.contains(&peer.member);
            if in_sync && !peer.in_sync {
                peer.in_sync_since = now;
            }
            peer.in_sync = in_sync;
            peer.resend_at = now;
            peer.renew_at = now;
            // After an entry that was not seen here a learner may have been dropped, and begin anew.
            peer.in_sync || (!skipped && entry.learners.contains(&peer.member))
        });
        if self.role == Role::Failing && self.peers.is_empty() {
            self.go_on_alone(out);
        }
        self.look_at_successor();
        self.advance(out);
        self.tick(now, out);
    }

    /// Whoever serves takes writes, unless it is to hand over.
    pub(crate) fn look_at_successor(&mut self) {
        let is_successor = |peer: &Peer<N>| peer.in_sync && self.entry.successor.as_ref() == Some(&peer.member.node);
        if self.role.reads() {
            self.role = if self.peers.iter().any(is_successor) { Role::HandingOver } else { Role::Serving };
        }
    }

    /// Commits what has the acknowledgements that it needs, and forgets what everybody has.
    pub(crate) fn advance(&mut self, out: &mut Vec<Effect<N, D>>) {
        if self.role < Role::Syncing {
            return;
        }
        let (required, in_sync) = (self.mask(|_| true), self.in_sync());
        // Whoever takes over must serve what it found; and what was taken with enough copies waits for them.
        let enough_copies = self.role == Role::Syncing || self.entry.in_sync.len() >= self.required_copies();
        let quorum = self.settings.write_quorum.map(|quorum| quorum.min(in_sync.count_ones() as usize + 1));
        let first = self.unstable.partition_point(|unstable| unstable.write.version <= self.committed);
        for unstable in self.unstable.range(first..) {
            let acknowledged = match quorum {
                Some(quorum) => (unstable.acks & in_sync).count_ones() as usize + 1 >= quorum,
                None => unstable.acks & required == required,
            };
            let stored = unstable.persisted || unstable.ahead;
            if !(acknowledged && stored && enough_copies) || self.role == Role::Failing {
                break;
            }
            self.committed = unstable.write.version;
            out.push(Effect::Committed(unstable.write.clone()));
        }
        while let Some(first) = self.unstable.front()
            && first.write.version <= self.committed
            && first.acks & required == required
            && first.persisted
        {
            self.stable = first.write.version;
            self.unstable.pop_front();
        }
        self.end_sync();
    }

    pub(crate) fn required_copies(&self) -> usize {
        self.settings.min_in_sync.max(self.settings.write_quorum.unwrap_or(1))
    }

    /// The slots of some of the peers.
    pub(crate) fn mask(&self, of: impl Fn(&Peer<N>) -> bool) -> u32 {
        self.peers.iter().filter(|peer| of(peer)).fold(0, |mask, peer| mask | 1 << peer.slot)
    }

    /// Sends a write to every peer.
    pub(crate) fn send(&self, write: &Write<D>, out: &mut Vec<Effect<N, D>>) {
        let append = |Peer { member, .. }: &Peer<N>| Effect::Append {
            to: member.clone(),
            header: self.header(member),
            write: write.clone(),
        };
        out.extend(self.peers.iter().map(append));
    }

    /// The slots of the in-sync peers.
    pub(crate) fn in_sync(&self) -> u32 {
        self.mask(|peer| peer.in_sync)
    }

    pub(crate) fn peer(&mut self, member: &Member<N>) -> Option<&mut Peer<N>> {
        self.peers.iter_mut().find(|peer| peer.member == *member)
    }

    pub(crate) fn index_of(&self, version: Version) -> Option<usize> {
        self.unstable.binary_search_by_key(&version, |unstable| unstable.write.version).ok()
    }

    pub(crate) fn find(&mut self, version: Version) -> Option<&mut Unstable<D>> {
        let index = self.index_of(version)?;
        self.unstable.get_mut(index)
    }
}

impl<N> Peer<N> {
    pub(crate) fn new(member: Member<N>, slot: u32, in_sync: bool) -> Self {
        Self {
            member,
            slot,
            in_sync,
            in_sync_since: 0,
            activation: 0,
            copied: None,
            joins: false,
            lease_until: 0,
            renew_at: 0,
            resend_at: 0,
            resent: Resent::default(),
            failed: false,
            collecting_since: None,
        }
    }
}
