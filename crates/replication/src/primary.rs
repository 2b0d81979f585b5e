//! What a primary does: it numbers writes, counts acknowledgements, keeps leases, and looks after its peers.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::{Change, Member},
    replica::{Effect, NotServing, Peer, Replica, Role, Unstable, Write},
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
        let version = self.last.max(floor).next(self.entry.epoch);
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
        if in_sync < required { Err(NotServing::BelowMinInSync { in_sync, required }) } else { Ok(()) }
    }

    /// Until when reads may be answered, if the role lets them: the end of the first lease to run out.
    pub fn lease_until(&self) -> u64 {
        if !self.role.reads() {
            return 0;
        }
        let counts = |peer: &&Peer<N>| peer.in_sync || peer.joins;
        self.peers.iter().filter(counts).map(|peer| peer.lease_until).min().unwrap_or(u64::MAX)
    }

    /// A write is on the disk here.
    pub fn persisted(&mut self, version: Version, out: &mut Vec<Effect<N, D>>) {
        if let Some(unstable) = self.find(version) {
            unstable.persisted = true;
            self.advance(out);
        }
    }

    /// A write could not be stored here. Returns whether it is as if it had never been: nobody else has it.
    pub fn persist_failed(&mut self, version: Version, out: &mut Vec<Effect<N, D>>) -> bool {
        if !self.role.leads() {
            return false;
        }
        if let Some(unstable) = self.find(version) {
            unstable.failed = true;
        }
        if self.peers.is_empty() {
            self.unstable.retain(|unstable| unstable.write.version != version);
            self.advance(out);
            return true;
        }
        if self.role != Role::Failing {
            out.push(Effect::Abandoned);
            self.role = Role::Failing;
            self.ask_at = 0;
        }
        false
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
    /// is settled by the entry that is on its way.
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

    /// Time has passed: renews leases, sends again, gives up late peers. To be called a few times in
    /// [`Settings::retry`](crate::Settings::retry).
    pub fn tick(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if !self.role.leads() {
            return;
        }
        self.end_takeover(now, out);
        self.ask_for_confirmation(now, out);
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.renew_at <= now {
                out.push(Effect::Renew { to: peer.member.clone(), header: self.header(&peer.member), sent_at: now });
                self.peers[index].renew_at = now + self.settings.renew;
            }
        }
        self.resend(now, out);
        self.look_after_peers(now, out);
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
        // Nobody is left to take its place: what it could store is all there is.
        if self.role == Role::Failing && self.peers.is_empty() {
            self.unstable.retain(|unstable| !unstable.failed);
            self.role = Role::Collecting;
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
        let (required, in_sync) = (self.mask(|_| true), self.mask(|peer| peer.in_sync));
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
        {
            self.stable = first.write.version;
            self.unstable.pop_front();
        }
        self.end_sync();
    }

    fn required_copies(&self) -> usize {
        self.settings.min_in_sync.max(self.settings.write_quorum.unwrap_or(1))
    }

    /// Sends, and asks, again what is not answered.
    fn resend(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        let retry = self.settings.retry;
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.resend_at > now {
                continue;
            }
            let (to, header, slot) = (peer.member.clone(), self.header(&peer.member), peer.slot);
            if self.role == Role::Collecting {
                if peer.collecting_since.is_some() {
                    out.push(Effect::Collect { to, header, sent_at: now });
                }
            } else {
                // What was proposed just now is on its way.
                let owed = |unstable: &&Unstable<D>| unstable.acks & 1 << slot == 0 && unstable.since + retry <= now;
                let append = |unstable: &Unstable<D>| Effect::Append {
                    to: to.clone(),
                    header: header.clone(),
                    write: unstable.write.clone(),
                };
                out.extend(self.unstable.iter().filter(owed).map(append));
            }
            self.peers[index].resend_at = now + retry;
        }
    }

    /// Asks the store for the change that is due, if any.
    pub(crate) fn look_after_peers(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if now < self.ask_at {
            return;
        }
        let Some(change) = self.due_change(now) else { return };
        self.ask_at = now + self.settings.retry;
        if let Change::CaughtUp(node) = &change {
            // From when it is in sync it may be made the primary, and this replica may be the last to hear of it.
            self.peers.iter_mut().filter(|peer| peer.member.node == *node).for_each(|peer| peer.joins = true);
        }
        out.push(Effect::Ask { epoch: self.entry.epoch, change });
    }

    fn due_change(&self, now: u64) -> Option<Change<N>> {
        let node = |peer: &Peer<N>| peer.member.node.clone();
        if let Some(late) = self.peers.iter().find(|peer| self.is_late(peer, now)) {
            return Some(Change::Remove(node(late)));
        }
        if self.role == Role::Failing {
            let step_down = self.peers.iter().find(|peer| peer.in_sync).map(|peer| Change::StepDown(node(peer)));
            // A learner has what could not be stored here, and cannot take the place.
            return step_down.or_else(|| self.peers.first().map(|peer| Change::Remove(node(peer))));
        }
        // What it copied before every replica had it, nobody could collect from it later.
        let copied = |peer: &&Peer<N>| peer.copied.is_some_and(|copied| self.is_on_replicas(copied));
        if let Some(learner) = self.peers.iter().filter(|peer| !peer.in_sync).find(copied) {
            return Some(Change::CaughtUp(node(learner)));
        }
        let settled = self.role == Role::HandingOver && self.unstable.is_empty();
        self.entry.successor.clone().filter(|_| settled).map(Change::HandOver)
    }

    /// The slots of some of the peers.
    pub(crate) fn mask(&self, of: impl Fn(&Peer<N>) -> bool) -> u32 {
        self.peers.iter().filter(|peer| of(peer)).fold(0, |mask, peer| mask | 1 << peer.slot)
    }

    fn is_late(&self, peer: &Peer<N>, now: u64) -> bool {
        let Self { settings, .. } = self;
        let late = |since: u64| since + settings.late <= now;
        match self.role {
            Role::Collecting => self.has_collected_enough() && (peer.failed || peer.collecting_since.is_some_and(late)),
            _ => {
                let granted_at = peer.lease_until.saturating_sub(settings.lease).max(peer.in_sync_since);
                let unleased = peer.in_sync && self.role.reads() && late(granted_at + settings.renew);
                let owes = self.unstable.iter().find(|unstable| unstable.acks & 1 << peer.slot == 0);
                let patient = settings.write_quorum.is_some() && peer.in_sync && self.role.reads();
                peer.failed || unleased || (!patient && owes.is_some_and(|unstable| late(unstable.since)))
            }
        }
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

    pub(crate) fn peer(&mut self, member: &Member<N>) -> Option<&mut Peer<N>> {
        self.peers.iter_mut().find(|peer| peer.member == *member)
    }

    fn find(&mut self, version: Version) -> Option<&mut Unstable<D>> {
        let index = self.unstable.binary_search_by_key(&version, |unstable| unstable.write.version).ok()?;
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
            failed: false,
            collecting_since: None,
        }
    }
}
