//! The master: the stored map, who was heard of when, and the steps of `cairn_placement`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};
use cairn_placement::{Candidate, Holder, Reason, Standing, View, change, desired, next_step};
use cairn_replication::{Change, Entry, Member};

use super::network::{Beat, News};
use crate::message::{Node, Request};

const SUSPECT_AFTER: u64 = 2_000;
const GONE_AFTER: u64 = 3_000;
const REPLACE_AFTER: u64 = 8_000;
const SETTLED_AFTER: u64 = 4_000;
const RETRY_AFTER: u64 = 5_000;
const VNODES: u32 = 128;
const MAX_MOVES: usize = 16;

#[derive(Debug)]
struct Registered {
    beat: Beat,
    heard_at: u64,
    started_at: u64,
    /// Since when it has not been silent; `None`: always.
    steady_since: Option<u64>,
    draining: bool,
}

#[derive(Debug)]
pub(crate) struct Master {
    factor: usize,
    partitions: Vec<Partition>,
    entries: Vec<Arc<Entry<Node>>>,
    /// The partition that each revision of the map has changed.
    log: Vec<u32>,
    nodes: BTreeMap<Node, Registered>,
    removed: BTreeSet<Node>,
    sessions: Arc<BTreeMap<Node, u64>>,
    candidates: Vec<Candidate>,
    planned: Vec<Vec<String>>,
    /// When a primary gave a node up.
    late: BTreeMap<(u32, Node), u64>,
    /// Copies that have been begun.
    pub(crate) copies: usize,
    /// What has happened, if anybody asks.
    pub(crate) story: Option<Vec<String>>,
}

impl Master {
    pub(crate) fn new(partitions: u32, factor: usize) -> Self {
        let partition = |id| Partition { id, ..Partition::default() };
        Self {
            factor,
            partitions: (0..partitions).map(partition).collect(),
            entries: (0..partitions).map(|_| Arc::default()).collect(),
            log: Vec::new(),
            nodes: BTreeMap::new(),
            removed: BTreeSet::new(),
            sessions: Arc::default(),
            candidates: Vec::new(),
            planned: vec![Vec::new(); partitions as usize],
            late: BTreeMap::new(),
            copies: 0,
            story: None,
        }
    }

    pub(crate) fn primary(&self, partition: u32) -> Option<Node> {
        self.entries.get(partition as usize)?.primary
    }

    pub(crate) fn entry(&self, partition: u32) -> &Entry<Node> {
        &self.entries[partition as usize]
    }

    /// Takes a node out as soon as it holds nothing.
    pub(crate) fn drain(&mut self, node: Node) {
        self.nodes.entry(node).and_modify(|known| known.draining = true);
    }

    /// Nodes that stay.
    pub(crate) fn members(&self) -> usize {
        self.nodes.values().filter(|known| !known.draining).count()
    }

    /// Whether a node was taken out: it is to stop.
    pub(crate) fn has_removed(&self, node: Node) -> bool {
        self.removed.contains(&node)
    }

    /// Returns whether the controller should look at once.
    pub(crate) fn hear(&mut self, node: Node, beat: Beat, now: u64) -> bool {
        if self.has_removed(node) {
            return false;
        }
        let known = self.nodes.entry(node).or_insert(Registered {
            beat: Beat { session: 0, ..beat },
            heard_at: now,
            started_at: now,
            steady_since: None,
            draining: false,
        });
        let is_news = known.beat.session < beat.session || known.beat.leaving != beat.leaving;
        if known.beat.session > beat.session {
            return false;
        }
        if known.beat.session < beat.session {
            known.started_at = now;
            Arc::make_mut(&mut self.sessions).insert(node, beat.session);
        }
        if known.heard_at + SUSPECT_AFTER <= now {
            known.steady_since = Some(now);
        }
        (known.heard_at, known.beat) = (now, beat);
        is_news
    }

    /// What has changed since a revision that a process knows.
    pub(crate) fn news(&self, session: u64, seen: usize) -> News {
        let changed: BTreeSet<u32> = self.log.get(seen..).unwrap_or_default().iter().copied().collect();
        let entries = changed.into_iter().map(|id| (id, self.entries[id as usize].clone())).collect();
        News { session, revision: self.log.len(), entries, sessions: self.sessions.clone() }
    }

    pub(crate) fn news_of(&self, session: u64, partition: u32) -> News {
        let entries = vec![(partition, self.entries[partition as usize].clone())];
        News { session, revision: 0, entries, sessions: Arc::default() }
    }

    /// Each node with what it is known to have.
    pub(crate) fn watchers(&self) -> Vec<(Node, Beat)> {
        self.nodes.iter().map(|(node, known)| (*node, known.beat)).collect()
    }

    /// Every step that can be taken. Returns whether the map has changed.
    pub(crate) fn reconcile(&mut self, now: u64) -> bool {
        self.plan(now);
        let before = self.log.len();
        let mut moving = self.partitions.iter().filter(|partition| !partition.learners.is_empty()).count();
        for index in 0..self.partitions.len() {
            let current = &self.partitions[index];
            let view = View {
                desired: &self.planned[index],
                write_quorum: None,
                may_copy: moving < MAX_MOVES,
                standing: &|id| self.standing(current, id, now),
            };
            if let Some(step) = next_step(current, view) {
                if step.reason == Reason::LearnerAdded {
                    moving += 1;
                    self.copies += step.next.learners.len() - current.learners.len();
                }
                self.store(step.next, step.reason);
            }
        }
        let held: BTreeSet<&str> =
            self.partitions.iter().flat_map(|partition| partition.sessions.keys().map(String::as_str)).collect();
        let is_drained = |(node, known): &(&Node, &Registered)| known.draining && !held.contains(name(**node).as_str());
        self.removed.extend(self.nodes.iter().filter(is_drained).map(|(node, _)| *node));
        self.nodes.retain(|node, _| !self.removed.contains(node));
        self.log.len() > before
    }

    /// A primary's request. Returns whether the map has changed.
    pub(crate) fn ask(&mut self, partition: u32, request: &Request, now: u64) -> bool {
        let (change_to, subject) = match request.change {
            Change::CaughtUp(node) => (PartitionChange::CaughtUp, node),
            Change::Remove(node) => (PartitionChange::Remove, node),
            Change::HandOver(node) => (PartitionChange::HandOver, node),
            Change::StepDown(node) => (PartitionChange::StepDown, node),
        };
        let asked = ChangePartition {
            node_id: name(request.from.node),
            session: request.from.session,
            epoch: request.epoch,
            change: change_to,
            subject: name(subject),
        };
        let current = &self.partitions[partition as usize];
        let Some(step) = change(current, &asked, &|id| self.standing(current, id, now)) else { return false };
        match step.reason {
            Reason::Late => drop(self.late.insert((partition, subject), now)),
            Reason::SteppedDown => drop(self.late.insert((partition, request.from.node), now)),
            _ => {}
        }
        self.store(step.next, step.reason);
        true
    }

    fn store(&mut self, next: Partition, reason: Reason) {
        if let Some(story) = &mut self.story {
            let Partition { id, epoch, primary, in_sync, learners, successor, sessions, .. } = &next;
            let reason = reason.as_str();
            story.push(format!(
                "partition {id} epoch {epoch} {reason}: {primary:?} {in_sync:?}, {learners:?}, {successor:?}, {sessions:?}"
            ));
        }
        let member = |id: &String| Member { node: node(id), session: next.sessions.get(id).copied().unwrap_or(0) };
        let index = next.id as usize;
        self.entries[index] = Arc::new(Entry {
            epoch: next.epoch,
            primary: next.primary.as_deref().map(node),
            in_sync: next.in_sync.iter().map(member).collect(),
            learners: next.learners.iter().map(member).collect(),
            successor: next.successor.as_deref().map(node),
        });
        self.log.push(next.id);
        self.partitions[index] = next;
    }

    fn plan(&mut self, now: u64) {
        let candidates: Vec<Candidate> = self
            .nodes
            .iter()
            .filter(|(_, known)| !known.draining && now < known.heard_at + REPLACE_AFTER)
            .map(|(id, known)| Candidate {
                node_id: name(*id),
                weight: 1.0,
                zone: None,
                leads: true,
                barred: BTreeSet::new(),
                accepts: known.steady_since.is_none_or(|since| since + SUSPECT_AFTER <= now)
                    && now < known.heard_at + SUSPECT_AFTER
                    && !known.beat.leaving,
            })
            .collect();
        // It proposes the same for the same.
        if self.candidates != candidates {
            self.planned = desired(&candidates, VNODES, &self.planned, self.factor);
            self.candidates = candidates;
        }
    }

    fn standing(&self, partition: &Partition, id: &str, now: u64) -> Standing {
        let Some(known) = self.nodes.get(&node(id)) else {
            return Standing { holder: Holder::Removed, session: 0, accepts: false, leaving: false, clock_off: false };
        };
        let (beat, silence) = (&known.beat, now - known.heard_at);
        let holder = match partition.sessions.get(id) {
            Some(session) if *session < beat.data_since => Holder::DataLost,
            _ if silence >= GONE_AFTER => Holder::Gone,
            _ if silence >= SUSPECT_AFTER => Holder::Silent,
            Some(session) if *session != beat.session => {
                Holder::Restarted { settled: known.started_at + SETTLED_AFTER <= now }
            }
            _ => Holder::Alive,
        };
        let is_late = self.late.get(&(partition.id, node(id))).is_some_and(|at| now < at + RETRY_AFTER);
        let accepts = silence < SUSPECT_AFTER && !known.draining && !beat.leaving && !is_late;
        Standing { holder, session: beat.session, accepts, leaving: beat.leaving, clock_off: false }
    }
}

fn name(node: Node) -> String {
    format!("node-{node}")
}

fn node(name: &str) -> Node {
    name.trim_start_matches("node-").parse().unwrap_or(Node::MAX)
}
