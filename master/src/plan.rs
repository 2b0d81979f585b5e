//! Who should hold what: the ring's proposal, kept from one look at the cluster to the next, and the steps towards it.
//!
//! What is planned for a silent node stays planned for it until `replace_after`: a crash does not copy partitions to
//! others that are back in a moment. The plan lives in memory and is stored with the entries that change.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use cairn_api_spec::cluster::{Replication, Strategy};
use cairn_placement::{Candidate, Holder, Reason, Standing, Step, View, desired, next_step};

use crate::{
    map::{Map, StoredPartition},
    rebalance::Limits,
    registry::{Member, Patience},
};

/// How long a node is not tried again for a partition whose primary gave it up, or that it gave up as the primary.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Nodes given up that are remembered.
const MAX_LATE: usize = 65_536;

/// The nodes as they are at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) members: &'a BTreeMap<String, Member>,
    pub(crate) patience: Patience,
}

/// The planned holders of every partition, and what stands against them.
pub(crate) struct Planner {
    vnodes: u32,
    replication: Replication,
    planned: Vec<Vec<String>>,
    /// When a node failed a partition, and in which session that was.
    late: HashMap<(u32, String), (u64, Instant)>,
}

impl Planner {
    pub(crate) fn new(vnodes: u32, replication: Replication, map: &Map) -> Self {
        let planned = map.partitions().map(|stored| planned_before(stored, replication.factor as usize)).collect();
        Self { vnodes, replication, planned, late: HashMap::new() }
    }

    pub(crate) fn replication(&self) -> Replication {
        self.replication
    }

    /// Who should hold the partition, the primary first.
    pub(crate) fn planned(&self, id: u32) -> &[String] {
        self.planned.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Takes note that a node, at this session, failed the partition.
    pub(crate) fn gave_up(&mut self, partition: u32, node: &str, session: u64) {
        self.late.retain(|_, (_, at)| at.elapsed() < RETRY_AFTER);
        if self.late.len() < MAX_LATE {
            self.late.insert((partition, node.to_owned()), (session, Instant::now()));
        }
    }

    /// Plans anew for the nodes that are there now.
    pub(crate) fn propose(&mut self, map: &Map, sight: Sight<'_>) {
        let candidate = |member: &Member| Candidate {
            node_id: member.registration().node_id.clone(),
            weight: member.registration().weight,
            zone: member.registration().zone.clone(),
            accepts: member.is_steady(sight.patience) && !member.is_leaving(),
        };
        let stays = |member: &&Member| !member.is_draining() && member.silence() < sight.patience.replace_after;
        let candidates: Vec<Candidate> = sight.members.values().filter(stays).map(candidate).collect();
        let proposal = desired(&candidates, self.vnodes, &self.planned, self.replication.factor as usize);
        for ((stored, planned), proposed) in map.partitions().zip(&mut self.planned).zip(proposal) {
            if !sight.only_absent_have(stored) {
                *planned = proposed;
            }
        }
    }

    /// Every step that can be taken now. Copies that are lost come before moves, and also while those are paused.
    pub(crate) fn steps(&self, map: &Map, sight: Sight<'_>, limits: Limits) -> Vec<Step> {
        let is_learned = |stored: &StoredPartition| !stored.partition.learners.is_empty();
        let lacks_copies =
            |stored: &&StoredPartition| stored.partition.in_sync.len() < self.replication.factor as usize;
        let mut moving = map.partitions().filter(|stored| is_learned(stored)).count();
        let (repairs, others): (Vec<_>, Vec<_>) = map.partitions().partition(lacks_copies);
        let may_begin = repairs.iter().map(|_| true).chain(others.iter().map(|_| !limits.paused));
        let mut steps = Vec::new();
        for (stored, may_begin) in repairs.iter().chain(&others).zip(may_begin) {
            let view = View {
                desired: self.planned(stored.partition.id),
                write_quorum: self.write_quorum(),
                may_copy: may_begin && (is_learned(stored) || moving < limits.max_moves as usize),
                standing: &|id| self.standing(stored, sight, id),
            };
            if let Some(step) = next_step(&stored.partition, view) {
                moving += usize::from(step.reason == Reason::LearnerAdded && !is_learned(stored));
                steps.push(step);
            }
        }
        steps
    }

    /// How a node stands towards a partition.
    pub(crate) fn standing(&self, stored: &StoredPartition, sight: Sight<'_>, id: &str) -> Standing {
        let Some(member) = sight.members.get(id) else {
            return Standing { holder: Holder::Removed, session: 0, accepts: false, leaving: false };
        };
        let session = member.registration().session;
        let failed = |(at_session, at): &(u64, Instant)| *at_session == session && at.elapsed() < RETRY_AFTER;
        let is_late = self.late.get(&(stored.partition.id, id.to_owned())).is_some_and(failed);
        let stays = !member.is_draining() && !member.is_leaving();
        Standing {
            holder: sight.holder(stored, id, member),
            session,
            accepts: member.is_alive(sight.patience) && stays && !is_late,
            leaving: member.is_leaving(),
        }
    }

    /// Copies that are planned, could be made, and are not being made yet.
    pub(crate) fn copies_left(&self, map: &Map, sight: Sight<'_>) -> usize {
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

impl Sight<'_> {
    fn holder(&self, stored: &StoredPartition, id: &str, member: &Member) -> Holder {
        let node = member.registration();
        // An entry from before there were sessions speaks of session 0.
        let known = stored.holders.get(id).map(|known| (*known, stored.session(id)));
        let other_data = |(incarnation, session)| incarnation != node.incarnation || node.session < session;
        if known.is_some_and(other_data) {
            Holder::DataLost
        } else if member.silence() >= self.patience.gone_after {
            Holder::Gone
        } else if !member.is_alive(self.patience) {
            Holder::Silent
        } else if known.is_some_and(|(_, session)| session != node.session) {
            Holder::Restarted { settled: member.is_settled() }
        } else {
            Holder::Alive
        }
    }

    /// Whether the partition waits for nodes that have been away for long: no other can replace them.
    fn only_absent_have(&self, stored: &StoredPartition) -> bool {
        let in_sync = || stored.partition.in_sync.iter().filter_map(|id| self.members.get(id));
        let is_absent = |member: &Member| !member.is_draining() && member.silence() >= self.patience.replace_after;
        in_sync().next().is_some() && in_sync().all(is_absent)
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
