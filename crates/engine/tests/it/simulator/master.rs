//! The master: the stored map, who was heard of when, and the steps of `cairn_placement`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairn_api_spec::cluster::{ChangePartition, Partition};
use cairn_placement::{Candidate, Holder, Reason, Standing, Step, View, change, desired, next_step};

use super::network::{Beat, News, Node, name, node};

const SUSPECT_AFTER: u64 = 2_000;
const GONE_AFTER: u64 = 3_000;
const REPLACE_AFTER: u64 = 8_000;
const SETTLED_AFTER: u64 = 4_000;
const RETRY_AFTER: u64 = 5_000;
const VNODES: u32 = 32;
const MAX_MOVES: usize = 16;

struct Registered {
    beat: Beat,
    heard_at: u64,
    started_at: u64,
    draining: bool,
}

/// A partition that goes on with what the disks of restarted nodes have.
pub(crate) struct Resumed {
    pub(crate) partition: u32,
    /// Those nodes, with the sessions that were in sync before.
    pub(crate) in_sync: Vec<(Node, u64)>,
}

pub(crate) struct Master {
    factor: usize,
    write_quorum: Option<usize>,
    partitions: Vec<Arc<Partition>>,
    /// The partition that each revision of the map has changed.
    log: Vec<u32>,
    nodes: BTreeMap<Node, Registered>,
    removed: BTreeSet<Node>,
    sessions: Arc<BTreeMap<Node, u64>>,
    candidates: Vec<Candidate>,
    planned: Vec<Vec<String>>,
    /// When a primary gave a node up.
    late: BTreeMap<(u32, Node), u64>,
    /// Partitions that go on with what the disks of restarted nodes have.
    pub(crate) resumed: Vec<Resumed>,
    /// Partitions that begin anew, all their copies lost.
    pub(crate) begun_anew: Vec<u32>,
    /// What has happened, if anybody asks.
    pub(crate) story: Option<Vec<String>>,
}

impl Master {
    pub(crate) fn new(partitions: u32, factor: usize, write_quorum: Option<usize>) -> Self {
        Self {
            factor,
            write_quorum,
            partitions: (0..partitions).map(|id| Arc::new(Partition { id, ..Partition::default() })).collect(),
            log: Vec::new(),
            nodes: BTreeMap::new(),
            removed: BTreeSet::new(),
            sessions: Arc::default(),
            candidates: Vec::new(),
            planned: vec![Vec::new(); partitions as usize],
            late: BTreeMap::new(),
            resumed: Vec::new(),
            begun_anew: Vec::new(),
            story: None,
        }
    }

    pub(crate) fn entry(&self, partition: u32) -> &Partition {
        &self.partitions[partition as usize]
    }

    pub(crate) fn primary(&self, partition: u32) -> Option<Node> {
        self.entry(partition).primary.as_deref().map(node)
    }

    /// Takes a node out as soon as it holds nothing.
    pub(crate) fn drain(&mut self, node: Node) {
        if self.members() > self.factor {
            self.nodes.entry(node).and_modify(|known| known.draining = true);
        }
    }

    /// Nodes that stay.
    pub(crate) fn members(&self) -> usize {
        self.nodes.values().filter(|known| !known.draining).count()
    }

    pub(crate) fn copies(&self) -> usize {
        self.factor.min(self.members())
    }

    /// Whether a node was taken out: it is to stop.
    pub(crate) fn has_removed(&self, node: Node) -> bool {
        self.removed.contains(&node)
    }

    pub(crate) fn hear(&mut self, node: Node, beat: Beat, now: u64) {
        let before = self.nodes.get(&node).map_or(0, |known| known.beat.session);
        if self.has_removed(node) || before > beat.session {
            return;
        }
        let new = Registered { beat, heard_at: now, started_at: now, draining: false };
        let known = self.nodes.entry(node).or_insert(new);
        if before < beat.session {
            known.started_at = now;
            Arc::make_mut(&mut self.sessions).insert(node, beat.session);
        }
        (known.heard_at, known.beat) = (now, beat);
    }

    /// What has changed since a revision that a process knows.
    pub(crate) fn news(&self, session: u64, seen: usize) -> News {
        let changed: BTreeSet<u32> = self.log.get(seen..).unwrap_or_default().iter().copied().collect();
        let entries = changed.into_iter().map(|id| self.partitions[id as usize].clone()).collect();
        News { session, revision: self.log.len(), entries, sessions: self.sessions.clone() }
    }

    pub(crate) fn news_of(&self, session: u64, partition: u32) -> News {
        let entries = vec![self.partitions[partition as usize].clone()];
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
                write_quorum: self.write_quorum,
                may_copy: moving < MAX_MOVES,
                standing: &|id| self.standing(current, id, now),
            };
            if let Some(step) = next_step(current, view) {
                moving += usize::from(step.reason == Reason::LearnerAdded);
                self.store(step);
            }
        }
        let held: BTreeSet<Node> =
            self.partitions.iter().flat_map(|entry| entry.sessions.keys().map(|n| node(n))).collect();
        let is_drained = |(node, known): &(&Node, &Registered)| known.draining && !held.contains(*node);
        self.removed.extend(self.nodes.iter().filter(is_drained).map(|(node, _)| *node));
        self.nodes.retain(|node, _| !self.removed.contains(node));
        self.log.len() > before
    }

    /// A primary's request. Returns whether the map has changed.
    pub(crate) fn ask(&mut self, partition: u32, asked: &ChangePartition, now: u64) -> bool {
        let current = &self.partitions[partition as usize];
        let Some(step) = change(current, asked, &|id| self.standing(current, id, now)) else { return false };
        match step.reason {
            Reason::Late => drop(self.late.insert((partition, node(&asked.subject)), now)),
            Reason::SteppedDown => drop(self.late.insert((partition, node(&asked.node_id)), now)),
            _ => {}
        }
        self.store(step);
        true
    }

    fn store(&mut self, Step { next, reason }: Step) {
        if let Some(story) = &mut self.story {
            let Partition { id, epoch, primary, in_sync, learners, successor, sessions, .. } = &next;
            let reason = reason.as_str();
            story.push(format!(
                "  partition {id} epoch {epoch} {reason}: {primary:?} {in_sync:?}, {learners:?}, {successor:?}, {sessions:?}"
            ));
        }
        if reason == Reason::Resumed {
            let before = &self.partitions[next.id as usize].sessions;
            let was_in_sync = |id: &String| (node(id), before.get(id).copied().unwrap_or(0));
            self.resumed.push(Resumed { partition: next.id, in_sync: next.in_sync.iter().map(was_in_sync).collect() });
        }
        let before = self.partitions[next.id as usize].generation;
        if before > 0 && before != next.generation {
            self.begun_anew.push(next.id);
        }
        self.log.push(next.id);
        let index = next.id as usize;
        self.partitions[index] = Arc::new(next);
    }

    fn plan(&mut self, now: u64) {
        let stays = |known: &Registered| !known.draining && now < known.heard_at + REPLACE_AFTER;
        let accepts = |known: &Registered| now < known.heard_at + SUSPECT_AFTER && !known.beat.leaving;
        let candidate = |(id, known): (&Node, &Registered)| Candidate {
            node_id: name(*id),
            weight: 1.0,
            zone: None,
            accepts: accepts(known),
            leads: true,
            barred: BTreeSet::new(),
        };
        let candidates: Vec<Candidate> = self.nodes.iter().filter(|(_, known)| stays(known)).map(candidate).collect();
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
