//! From the map to the roles of a node: what it prepares, learns and drops; and what it tells the master.

use std::sync::Arc;

use cairn_api_spec::{
    cluster::{ChangePartition, Partition, PartitionChange},
    name::partition_of,
};
use cairn_engine::NodeId;
use cairn_replication::{Change, Entry, Member, Role};

use super::{
    copy::{Doing, Learning, What},
    machine::Machine,
    merge::Merging,
    network::{Beat, Body, MASTER, News, Process, name, node},
    restoring::Restoring,
};
use crate::planted::Bug;

/// The epoch in which a partition is assigned for the first time.
const FIRST_EPOCH: u64 = 1;

/// What a primary asks of the master.
pub(crate) fn request(me: &Process, epoch: u64, change: Change<NodeId>) -> ChangePartition {
    let (change, subject) = match change {
        Change::CaughtUp(node) => (PartitionChange::CaughtUp, node),
        Change::Remove(node) => (PartitionChange::Remove, node),
        Change::HandOver(node) => (PartitionChange::HandOver, node),
        Change::StepDown(node) => (PartitionChange::StepDown, node),
    };
    let (node_id, subject) = (me.node.to_string(), subject.to_string());
    ChangePartition { node_id, session: me.session, epoch, change, subject }
}

/// The entry as the protocol knows it.
fn entry_of(entry: &Partition) -> Entry<NodeId> {
    let member = |node: &String| Member {
        node: node.as_str().into(),
        session: entry.sessions.get(node).copied().unwrap_or_default(),
    };
    Entry {
        epoch: entry.epoch,
        primary: entry.primary.as_deref().map(Into::into),
        in_sync: entry.in_sync.iter().map(member).collect(),
        learners: entry.learners.iter().map(member).collect(),
        successor: entry.successor.as_deref().map(Into::into),
    }
}

/// In-sync processes of which this one does not know that they were in sync with the same primary as it: what they have
/// beyond the writes that they name, nobody else may have.
fn strangers(me: &Process, before: &Entry<NodeId>, entry: &Entry<NodeId>, known: &[Process]) -> Vec<Process> {
    let held = |member: &Process| before.in_sync.contains(member) || before.learners.contains(member);
    let is_strange = |member: &&Process| **member != *me && (!held(me) || !held(member) || known.contains(member));
    if entry.in_sync.contains(me) { entry.in_sync.iter().filter(is_strange).cloned().collect() } else { Vec::new() }
}

impl Machine {
    pub(crate) fn heartbeat(&mut self) {
        let Self { data_since, seen, leaving, .. } = *self;
        let beat = Beat { session: self.me.session, data_since, seen, leaving };
        self.send(MASTER, Body::Heartbeat(beat));
    }

    /// Takes over what the master tells.
    pub(crate) fn learn(&mut self, news: &News, now: u64) {
        if news.session != self.me.session {
            return;
        }
        for entry in &news.entries {
            self.follow_entry(entry, now);
        }
        self.seen = self.seen.max(news.revision);
        if news.revision > 0 && !Arc::ptr_eq(&self.sessions, &news.sessions) {
            let before = std::mem::replace(&mut self.sessions, news.sessions.clone());
            for (id, session) in news.sessions.iter().filter(|(id, session)| before.get(id) < Some(session)) {
                let ended = Member { node: NodeId::from(name(*id)), session: session.saturating_sub(1) };
                for partition in 0..self.rules.partitions {
                    self.protocol(partition, now, |replica, now, out| replica.session_ended(&ended, now, out));
                }
            }
        }
    }

    fn follow_entry(&mut self, entry: &Partition, now: u64) {
        let (partition, me) = (entry.id, self.me.clone());
        let forgets = self.has(Bug::StrangersForgotten);
        let known = self.strangers.get(&partition).cloned().unwrap_or_default();
        let change = self.protocol(partition, now, |replica, now, out| {
            let (role, before) = (replica.role(), replica.entry().clone());
            replica.configure(entry_of(entry), now, out).then(|| {
                let entry = replica.entry();
                let mut strangers = strangers(&me, &before, entry, &known);
                strangers.retain(|member| !(forgets && before.in_sync.contains(member)));
                (role, replica.role(), before.primary_process() == entry.primary_process(), strangers)
            })
        });
        let Some((before, role, same_primary, strangers)) = change else { return };
        let is_quorum = self.rules.settings.write_quorum.is_some() && !self.has(Bug::QuorumNotMerged);
        let merges = is_quorum && strangers != known && !strangers.is_empty();
        self.strangers.insert(partition, strangers.clone());
        let left = before.leads() && !role.leads();
        // What memory has may be older than what another primary wrote.
        if (left || role == Role::Preparing) && !self.has(Bug::MemoryKept) {
            let count = self.rules.partitions;
            self.memory.forget(|name| partition_of(name, count) == partition);
        }
        let goes_on = same_primary && before == role && self.doing.contains_key(&partition);
        match role {
            // An entry that speaks of a former process of this node may soon speak of this one.
            Role::Idle if entry.sessions.contains_key(&*self.me.node) => {}
            Role::Idle => {
                let had = self.disk.tables.held.contains_key(&partition) || before != Role::Idle;
                if had && !self.leaving {
                    self.begin(partition, What::Disown, now);
                }
            }
            Role::Learner if !goes_on => {
                self.doing.remove(&partition);
                if let Some(primary) = entry.primary.as_deref() {
                    let primary = node(primary);
                    self.begin(partition, What::Learn(Learning::new(primary, entry.generation)), now);
                }
            }
            Role::Preparing if !goes_on || merges => {
                let held = self.disk.tables.held.get(&partition);
                let what = if held.is_none_or(|held| held.generation != entry.generation) {
                    What::Restore(Restoring::new(entry.generation, entry.epoch == FIRST_EPOCH))
                } else if is_quorum && !strangers.is_empty() {
                    What::Merge(Merging::new(entry.generation, strangers))
                } else {
                    What::Settle
                };
                self.begin(partition, what, now);
            }
            Role::Replica => drop(self.doing.remove(&partition)),
            _ => {}
        }
    }

    /// Begins work on a partition, in place of other work.
    fn begin(&mut self, partition: u32, what: What, now: u64) {
        self.attempts += 1;
        let attempt = self.attempts;
        self.doing.insert(partition, Doing { attempt, what });
        self.go_on(partition, attempt, now);
    }

    /// The data are here: the node takes the lead.
    pub(crate) fn lead(&mut self, partition: u32, now: u64) {
        self.doing.remove(&partition);
        let sessions = self.sessions.clone();
        self.protocol(partition, now, |replica, now, out| {
            replica.lead(now, out);
            let has_ended =
                |member: &&Process| sessions.get(&node(&member.node)).is_some_and(|session| member.session < *session);
            let ended: Vec<Process> = replica.entry().in_sync.iter().filter(has_ended).cloned().collect();
            ended.iter().for_each(|process| replica.session_ended(process, now, out));
        });
    }
}
