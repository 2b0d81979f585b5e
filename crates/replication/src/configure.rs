//! What a new entry, or a new session of a node, means for a replica.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::{Entry, Member, Place},
    interface::{Effect, Role},
    replica::Replica,
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// Takes over an entry. Returns whether it is news, and can be followed: see [`Effect::EpochTooHigh`].
    pub fn configure(&mut self, entry: Entry<N>, now: u64, out: &mut Vec<Effect<N, D>>) -> bool {
        if entry.epoch <= self.entry.epoch || entry.epoch < self.fence {
            return false;
        }
        if entry.epoch > Version::MAX_EPOCH {
            out.push(Effect::EpochTooHigh(entry.epoch));
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
        self.lost = None;
    }
}
