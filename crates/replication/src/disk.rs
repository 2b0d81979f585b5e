//! What the answers of this copy's disk mean.
//!
//! A write that somebody may count on is never dropped because the disk refuses it: another copy takes over, or the write
//! is stored again until the disk takes it. What is lost all the same is said: by a follower to its primary, and by the
//! last copy to whoever runs the cluster.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    interface::{Effect, Role},
    replica::{Replica, Unstable},
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// A write is on the disk here.
    pub fn persisted(&mut self, version: Version, out: &mut Vec<Effect<N, D>>) {
        if let Some(unstable) = self.find(version) {
            (unstable.persisted, unstable.failed) = (true, false);
            self.advance(out);
        }
    }

    /// A write that was proposed here, or came with [`Effect::Persist`], could not be stored. Returns whether it is as if
    /// it had never been: nobody has been told of it, and nobody else has it. Otherwise it stays what it was, and another
    /// copy takes over or [`Effect::Persist`] comes again.
    pub fn persist_failed(&mut self, version: Version, out: &mut Vec<Effect<N, D>>) -> bool {
        let Some(index) = self.index_of(version) else {
            self.lost(version, out);
            return false;
        };
        let in_sync = self.in_sync();
        let Unstable { ahead, persisted, failed, acks, .. } = &mut self.unstable[index];
        // Another attempt may have stored it; and a former primary has acknowledged only what went ahead of its disk.
        if *persisted || !self.role.leads() {
            if *ahead && !*persisted {
                self.lost(version, out);
            }
            return false;
        }
        *failed = true;
        // It may be missing in the copy that a learner makes.
        *acks &= in_sync;
        let is_committed = version <= self.committed;
        if self.role <= Role::Syncing || (is_committed && in_sync == 0) {
            return false;
        }
        if self.peers.is_empty() {
            self.unstable.remove(index);
            self.advance(out);
            return true;
        }
        self.fail(out);
        false
    }

    /// This copy's disk does not have a write that this copy has acknowledged to a primary: it refuses everything until an
    /// entry makes it a learner, which copies anew. As the primary it lets another copy take over; without one it goes on,
    /// see [`Effect::Lost`].
    pub fn lost(&mut self, version: Version, out: &mut Vec<Effect<N, D>>) {
        // Before that, a peer may say that it is everywhere, and then nobody stores it again.
        let is_kept = self.role >= Role::Syncing;
        let is_stored_again = is_kept && self.find(version).is_some_and(|unstable| !unstable.persisted);
        if self.role == Role::Idle || is_stored_again {
            return;
        }
        self.lost = Some(self.lost.map_or(version, |lost| lost.min(version)));
        if self.role < Role::Syncing {
            return;
        }
        if self.in_sync() == 0 { self.admit_loss(out) } else { self.fail(out) }
    }

    /// This copy's disk could not be read, or did not answer: another copy takes over, if one can.
    pub fn disk_failed(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        let serves = matches!(self.role, Role::Serving | Role::HandingOver);
        if serves && self.able_to_lead(now).is_some() {
            self.fail(out);
            self.look_after_peers(now, out);
        }
    }

    /// The last copy goes on without what it has lost.
    pub(crate) fn admit_loss(&mut self, out: &mut Vec<Effect<N, D>>) {
        out.extend(self.lost.take().map(Effect::Lost));
    }

    /// Nobody is left to take the place of a failing primary. What it has answered, or found in its takeover, stays, and so
    /// does what its disk takes; what became of the rest nobody has been told.
    pub(crate) fn go_on_alone(&mut self, out: &mut Vec<Effect<N, D>>) {
        let (committed, may_be_answered) = (self.committed, self.may_be_answered());
        self.unstable.retain(|unstable| !unstable.failed || unstable.write.version <= may_be_answered);
        // Who repeats an abandoned write looks for it on the disk, so it is not committed before it is there.
        let abandoned = self.unstable.iter_mut().filter(|unstable| unstable.write.version > committed);
        abandoned.for_each(|unstable| unstable.ahead = false);
        let is_answered = |unstable: &&Unstable<D>| unstable.failed && unstable.write.version <= committed;
        let answered = self.unstable.iter().filter(is_answered);
        out.extend(answered.map(|unstable| Effect::Committed(unstable.write.clone())));
        self.role = Role::Syncing;
        self.admit_loss(out);
    }

    /// Lets another copy take over from a disk that is hung or refuses everything; until then, and when there is none,
    /// what it has refused is stored again.
    pub(crate) fn look_after_disk(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if !matches!(self.role, Role::Syncing | Role::Serving | Role::HandingOver) {
            return;
        }
        let (late, disk_late) = (self.settings.late, self.settings.disk_late);
        let is_late = |unstable: &Unstable<D>| {
            let waits_since = unstable.since;
            !unstable.persisted && (waits_since + disk_late <= now || (unstable.failed && waits_since + late <= now))
        };
        if self.able_to_lead(now).is_some() && self.unstable.iter().any(is_late) {
            return self.fail(out);
        }
        if self.persist_at <= now {
            let window = self.settings.window;
            for unstable in self.unstable.iter_mut().filter(|unstable| unstable.failed).take(window) {
                unstable.failed = false;
                out.push(Effect::Persist(unstable.write.clone()));
                self.persist_at = now + self.settings.retry;
            }
        }
    }

    fn fail(&mut self, out: &mut Vec<Effect<N, D>>) {
        if self.role != Role::Failing {
            out.push(Effect::Abandoned);
            self.role = Role::Failing;
            self.ask_at = 0;
        }
    }
}
