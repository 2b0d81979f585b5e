//! What a replica or a learner answers to a primary.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::Member,
    interface::{Collected, Effect, Header, Refusal, Role, Write},
    replica::Replica,
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// A primary's write. When it is taken, the caller acknowledges it: once it is stored as durably as it asks, or at
    /// once when this returns `false`. Then it came late, once more: it is known to be on every in-sync replica, this one
    /// too, and its key may have been deleted and the deletion forgotten here since then.
    ///
    /// # Errors
    /// [`Refusal`]; then it must not be stored.
    pub fn append(
        &mut self,
        header: &Header<N>,
        write: Write<D>,
        now: u64,
        out: &mut Vec<Effect<N, D>>,
    ) -> Result<bool, Refusal> {
        self.follow(header, out)?;
        let is_new = write.version > self.stable;
        self.note(write, now);
        Ok(is_new)
    }

    /// A primary asks for a lease: that this replica does not take its place for [`Settings::promise`] from now on.
    ///
    /// # Errors
    /// [`Refusal`]; then there is no lease.
    ///
    /// [`Settings::promise`]: crate::Settings::promise
    pub fn renew(&mut self, header: &Header<N>, now: u64, out: &mut Vec<Effect<N, D>>) -> Result<(), Refusal> {
        self.follow(header, out)?;
        self.make_promise(&header.primary, now);
        Ok(())
    }

    /// A new primary asks for what may not be everywhere. The answer is a lease, too, and when this replica was the
    /// primary, the word that it is none any more.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn collect(
        &mut self,
        header: &Header<N>,
        now: u64,
        out: &mut Vec<Effect<N, D>>,
    ) -> Result<Collected<D>, Refusal> {
        self.follow(header, out)?;
        self.make_promise(&header.primary, now);
        let writes = self.unstable.iter().map(|unstable| unstable.write.clone()).collect();
        Ok(Collected { writes, stable: self.stable, last: self.last })
    }

    /// Whether to do what a primary says.
    fn follow(&mut self, header: &Header<N>, out: &mut Vec<Effect<N, D>>) -> Result<(), Refusal> {
        // A primary sends to those only that it knows to be in sync, or that have asked to learn. And an entry that is not
        // followed has no primary.
        if header.session != self.me.session || header.epoch > Version::MAX_EPOCH {
            return Err(Refusal::NotHolder);
        }
        if self.role == Role::Idle {
            self.fence = self.fence.max(header.epoch);
            return Err(Refusal::NotHolder);
        }
        let known = self.entry.epoch == self.fence;
        // The same primary under a later entry asks the same holders, or more of them.
        let same_primary = known && !self.role.leads() && self.entry.primary.as_ref() == Some(&header.primary.node);
        if header.epoch > self.fence {
            // The entry that says so is on its way.
            self.stop_leading(out);
            self.fence = header.epoch;
            if self.role != Role::Learner {
                self.role = Role::Replica;
            }
        } else if header.epoch < self.since || (!same_primary && (known || header.epoch < self.fence)) {
            return Err(Refusal::Stale(self.fence));
        }
        // What was promised before stays promised, and a former primary has heard that it is none any more.
        if self.lost.is_some() {
            return Err(Refusal::Failed);
        }
        self.set_stable(header.stable);
        Ok(())
    }

    fn make_promise(&mut self, to: &Member<N>, now: u64) {
        self.promises.retain(|(other, until)| other != to && now < *until);
        self.promises.push((to.clone(), now + self.settings.promise));
    }
}
