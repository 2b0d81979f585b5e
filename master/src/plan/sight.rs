//! The nodes as they are at one moment.

use std::{collections::BTreeMap, time::Duration};

use cairn_placement::Holder;

use crate::{
    map::StoredPartition,
    registry::{Member, Patience},
};

/// The nodes as they are at one moment.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// Every registered node, by id.
    pub members: &'a BTreeMap<String, Member>,
    /// When silence means something.
    pub patience: Patience,
    /// The time since the master started.
    pub now: Duration,
}

impl Sight<'_> {
    /// What is known of a node as a holder of a partition.
    pub(super) fn holder(&self, stored: &StoredPartition, id: &str) -> Holder {
        let Some(member) = self.members.get(id) else { return Holder::Removed };
        let node = member.registration();
        // An entry from before there were sessions speaks of session 0.
        let known = stored.holders.get(id).map(|known| (*known, stored.session(id)));
        let other_data = |(incarnation, session)| incarnation != node.incarnation || node.session < session;
        if known.is_some_and(other_data) {
            Holder::DataLost
        } else if member.silence(self.now) >= self.patience.gone_after {
            Holder::Gone
        } else if !member.is_alive(self.patience, self.now) {
            Holder::Silent
        } else if known.is_some_and(|(_, session)| session != node.session) {
            Holder::Restarted { settled: member.is_settled(self.now) }
        } else {
            Holder::Alive
        }
    }

    /// Whether the partition waits for nodes that have been away for long: no other can replace them.
    pub(super) fn only_absent_have(&self, stored: &StoredPartition) -> bool {
        let in_sync = || stored.partition.in_sync.iter().filter_map(|id| self.members.get(id));
        let is_absent =
            |member: &Member| !member.is_draining() && member.silence(self.now) >= self.patience.replace_after;
        in_sync().next().is_some() && in_sync().all(is_absent)
    }
}
