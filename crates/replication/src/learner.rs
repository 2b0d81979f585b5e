//! How a primary brings a learner up to date.
//!
//! A learner may be in sync before it hears of it, as soon as it has said that it has everything. From then on it must
//! not drop what it has, unless an entry makes it a learner anew, or its primary says that it must begin again.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::Member,
    interface::{Effect, Refusal, Write},
    replica::{Peer, Replica},
};

/// As many peers as a set of acknowledgements has bits.
const MAX_PEERS: u32 = u32::BITS;

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// A learner that knows the entry of `epoch` begins to copy: from now on it gets every write, and its acknowledgements
    /// are required. The copy must contain every write that was proposed before.
    ///
    /// # Errors
    /// [`Refusal`] when it is no learner of the entry, or this replica does not serve.
    pub fn activate(&mut self, learner: &Member<N>, epoch: u64) -> Result<(), Refusal> {
        // One that is still to hear that it was dropped meanwhile would begin anew, and be taken for complete. One that
        // may be in sync by now has its copy: this is an old request that comes late.
        let joins = self.peer(learner).is_some_and(|peer| peer.joins);
        if !self.role.reads() || epoch < self.entry.epoch || joins || !self.entry.learners.contains(learner) {
            return Err(Refusal::NotHolder);
        }
        if self.peer(learner).is_none() {
            let slot = (!self.mask(|_| true)).trailing_zeros();
            if slot >= MAX_PEERS {
                return Err(Refusal::NotHolder);
            }
            self.peers.push(Peer::new(learner.clone(), slot, false));
            // They are in the copy, but for those that the disk has refused. This may be an old request that comes late:
            // what was sent since is owed.
            let in_copy = self.unstable.iter_mut().filter(|unstable| !unstable.failed);
            in_copy.for_each(|unstable| unstable.acks |= 1 << slot);
        }
        self.activations += 1;
        let activation = self.me.session << 32 | self.activations;
        if let Some(peer) = self.peer(learner) {
            (peer.activation, peer.copied, peer.failed) = (activation, None, false);
        }
        Ok(())
    }

    /// The writes that are not known to be on this disk, in the order of versions. A learner gets each of them by itself;
    /// one that it has already must not be taken for something that is in no copy but its own.
    pub fn not_stored(&self) -> impl Iterator<Item = &Write<D>> {
        self.unstable.iter().filter(|unstable| !unstable.persisted).map(|unstable| &unstable.write)
    }

    /// The number of a learner's present copy, since the beginning of which it gets every write.
    pub fn activation(&self, learner: &Member<N>) -> Option<u64> {
        self.peers.iter().find(|peer| peer.member == *learner).map(|peer| peer.activation)
    }

    /// Whether a learner that does not get every write must begin again, and may: it has said that it has everything, so
    /// it may be in-sync by now, and only a primary that knows better can tell it to drop what it has.
    pub fn must_begin_again(&self, learner: &Member<N>, activation: u64) -> bool {
        let is_present = self.activation(learner) == Some(activation);
        self.role.leads() && !is_present && self.entry.learners.contains(learner)
    }

    /// A learner has the whole copy: it is to be in-sync.
    ///
    /// # Errors
    /// [`Refusal`] when it has not got every write since it began: it must begin again.
    pub fn caught_up(&mut self, learner: &Member<N>, now: u64, out: &mut Vec<Effect<N, D>>) -> Result<(), Refusal> {
        let last = self.last;
        self.peer(learner).ok_or(Refusal::NotHolder)?.copied.get_or_insert(last);
        self.look_after_peers(now, out);
        Ok(())
    }

    /// Whether every in-sync replica has every write up to a version, committed or not.
    pub(crate) fn is_on_replicas(&self, version: Version) -> bool {
        let in_sync = self.in_sync();
        let mut older = self.unstable.iter().take_while(|unstable| unstable.write.version <= version);
        older.all(|unstable| unstable.acks & in_sync == in_sync)
    }
}
