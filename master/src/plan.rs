//! Who should hold what: the ring's proposal, kept from one look at the cluster to the next, and the steps towards it.
//!
//! What is planned for a silent node stays planned for it until `replace_after`: a crash does not copy partitions to
//! others that are back in a moment. A copy that is stuck is planned for another node at once, and the stuck one is not
//! tried again for a while. The plan lives in memory and is stored with the entries that change.

use std::{collections::BTreeSet, time::Duration};

use cairn_api_spec::cluster::{Replication, Strategy};
use cairn_placement::{
    Candidate, Copies, Expected, Headway, Holder, Reason, Seen, Standing, Step, View, desired, next_step,
};

mod failures;
mod sight;

use self::failures::Failures;
pub use self::sight::Sight;
use crate::{
    map::{Map, StoredPartition},
    rebalance::Limits,
    registry::Member,
};

/// The planned holders of every partition, and what stands against them.
pub struct Planner {
    vnodes: u32,
    replication: Replication,
    planned: Vec<Vec<String>>,
    copies: Copies,
    failures: Failures,
}

/// A copy that is given up, since it does not come forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckCopy {
    /// The partition.
    pub partition: u32,
    /// The learner.
    pub node: String,
}

impl Planner {
    /// The planner of a map, with what was planned when it was stored.
    pub fn new(vnodes: u32, replication: Replication, map: &Map) -> Self {
        let planned = map.partitions().map(|stored| planned_before(stored, replication.factor as usize)).collect();
        Self { vnodes, replication, planned, copies: Copies::default(), failures: Failures::default() }
    }

    /// How partitions are replicated.
    pub fn replication(&self) -> Replication {
        self.replication
    }

    /// Who should hold the partition, the primary first.
    pub fn planned(&self, id: u32) -> &[String] {
        self.planned.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Takes note that a node, at this session, failed the partition.
    pub fn gave_up(&mut self, partition: u32, node: &str, session: u64, now: Duration) {
        self.failures.late(partition, node, session, now);
    }

    /// Takes note that a node came in sync with the partition.
    pub fn caught_up(&mut self, partition: u32, node: &str) {
        self.failures.forget(partition, node);
    }

    /// Looks at how the copies do that are being made. Returns those that are stuck since the last look.
    pub fn watch(&mut self, map: &Map, sight: Sight<'_>, expected: Expected) -> Vec<StuckCopy> {
        let is_alive = |stored: &StoredPartition, id: &str| sight.holder(stored, id) == Holder::Alive;
        let seen = map.partitions().flat_map(|stored| {
            let entry = &stored.partition;
            let primary = entry.primary.as_deref().unwrap_or_default();
            entry.learners.iter().map(move |node| {
                let transfers = sight.members.get(node).map_or(&[][..], |member| member.transfers.as_slice());
                Seen {
                    partition: entry.id,
                    node,
                    session: stored.session(node),
                    primary,
                    transfer: transfers.iter().find(|transfer| transfer.partition == entry.id).copied(),
                    can_move: is_alive(stored, primary) && is_alive(stored, node),
                }
            })
        });
        let seen: Vec<Seen<'_>> = seen.collect();
        self.copies.observe(&seen, expected, sight.now);
        let mut stuck = Vec::new();
        for Seen { partition, node, session, .. } in seen {
            // Until it is out of the entry it is seen again.
            let is_known = self.failures.has(partition, node, session, sight.now);
            if !is_known && self.copies.headway(partition, node, sight.now) == Headway::Stuck {
                self.failures.stuck(partition, node, session, sight.now);
                stuck.push(StuckCopy { partition, node: node.to_owned() });
            }
        }
        stuck
    }

    /// Plans anew for the nodes that are there now.
    pub fn propose(&mut self, map: &Map, sight: Sight<'_>) {
        let session = |id: &str| sight.members.get(id).map(|member| member.registration().session);
        let stuck = self.failures.stuck_copies(session, sight.now);
        let candidate = |member: &Member| {
            let node = member.registration();
            let barred: BTreeSet<usize> =
                stuck.get(node.node_id.as_str()).into_iter().flatten().map(|partition| *partition as usize).collect();
            Candidate {
                node_id: node.node_id.clone(),
                weight: node.weight,
                zone: node.zone.clone(),
                accepts: member.is_steady(sight.patience, sight.now) && !member.is_leaving(),
                leads: !member.is_clock_off(),
                barred,
            }
        };
        let stays =
            |member: &&Member| !member.is_draining() && member.silence(sight.now) < sight.patience.replace_after;
        let candidates: Vec<Candidate> = sight.members.values().filter(stays).map(candidate).collect();
        let proposal = desired(&candidates, self.vnodes, &self.planned, self.replication.factor as usize);
        for ((stored, planned), proposed) in map.partitions().zip(&mut self.planned).zip(proposal) {
            if !sight.only_absent_have(stored) {
                *planned = proposed;
            }
        }
    }

    /// Every step that can be taken now.
    ///
    /// Copies that are lost do not wait for moves, and are made also while those are paused: they have as many places
    /// of their own. A copy that does not come forward takes none.
    pub fn steps(&self, map: &Map, sight: Sight<'_>, limits: Limits) -> Vec<Step> {
        let most = limits.max_moves as usize;
        let lacks_copies =
            |stored: &&StoredPartition| stored.partition.in_sync.len() < self.replication.factor as usize;
        let (repairs, moves): (Vec<_>, Vec<_>) = map.partitions().partition(lacks_copies);
        let under_way = |stored: &[&StoredPartition]| stored.iter().filter(|s| self.comes_forward(s, sight)).count();
        let (mut repairing, mut moving) = (under_way(&repairs), under_way(&moves));
        let mut steps = Vec::new();
        for stored in repairs {
            let may_begin = repairing < most;
            repairing += usize::from(self.take(stored, sight, may_begin, true, &mut steps));
        }
        for stored in moves {
            let may_begin = repairing + moving < most;
            moving += usize::from(self.take(stored, sight, may_begin, !limits.paused, &mut steps));
        }
        steps
    }

    /// Takes the partition's next step, if there is one. Returns whether it begins to be copied.
    fn take(
        &self,
        stored: &StoredPartition,
        sight: Sight<'_>,
        may_begin: bool,
        may_copy: bool,
        steps: &mut Vec<Step>,
    ) -> bool {
        let is_learned = !stored.partition.learners.is_empty();
        let view = View {
            desired: self.planned(stored.partition.id),
            write_quorum: self.write_quorum(),
            may_copy: may_copy && (is_learned || may_begin),
            standing: &|id| self.standing(stored, sight, id),
        };
        let Some(step) = next_step(&stored.partition, view) else { return false };
        let begins = step.reason == Reason::LearnerAdded && !is_learned;
        steps.push(step);
        begins
    }

    fn comes_forward(&self, stored: &StoredPartition, sight: Sight<'_>) -> bool {
        let entry = &stored.partition;
        entry.learners.iter().any(|node| self.copies.headway(entry.id, node, sight.now) == Headway::Moving)
    }

    /// How a node stands towards a partition.
    pub fn standing(&self, stored: &StoredPartition, sight: Sight<'_>, id: &str) -> Standing {
        let Some(member) = sight.members.get(id) else {
            return Standing { holder: Holder::Removed, session: 0, accepts: false, leaving: false, clock_off: false };
        };
        let session = member.registration().session;
        let has_failed = self.failures.has(stored.partition.id, id, session, sight.now);
        let stays = !member.is_draining() && !member.is_leaving();
        Standing {
            holder: sight.holder(stored, id),
            session,
            accepts: member.is_alive(sight.patience, sight.now) && stays && !has_failed,
            leaving: member.is_leaving(),
            clock_off: member.is_clock_off(),
        }
    }

    /// Copies that are planned, could be made, and are not being made yet.
    pub fn copies_left(&self, map: &Map, sight: Sight<'_>) -> usize {
        let left = |stored: &StoredPartition| {
            let has = |id: &String| stored.holders().any(|holder| holder == id);
            let missing = |id: &&String| !has(id) && self.standing(stored, sight, id).accepts;
            self.planned(stored.partition.id).iter().filter(missing).count()
        };
        map.partitions().map(left).sum()
    }

    fn write_quorum(&self) -> Option<usize> {
        (self.replication.strategy == Strategy::Quorum).then_some(self.replication.write_quorum as usize)
    }
}

/// What was planned when the entry was last stored, or what it shows of that.
fn planned_before(stored: &StoredPartition, factor: usize) -> Vec<String> {
    if !stored.planned.is_empty() {
        return stored.planned.clone();
    }
    // Learners are to have the partition in the end.
    let mut planned: Vec<String> = stored.holders().take(factor).cloned().collect();
    planned.sort_by_key(|id| Some(id) != stored.partition.primary.as_ref());
    planned
}
