//! A partition and its nodes, to which anything happens in any order.

use std::collections::{BTreeMap, BTreeSet};

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};
use cairn_placement::{Holder, Reason, Standing, Step, View, change, next_step};
use proptest::prelude::*;

const IDS: [&str; 4] = ["a", "b", "c", "d"];

/// A node, as it really is, and as the master sees it.
#[derive(Clone, Copy, Debug)]
struct Node {
    session: u64,
    incarnation: u64,
    silence: Option<Holder>,
    registered: bool,
    leaving: bool,
    draining: bool,
    clock_off: bool,
    settled: bool,
    /// Whether every acknowledged write is on its disk.
    complete: bool,
}

/// One partition and its nodes; writes are acknowledged by every in-sync process.
struct World {
    nodes: [Node; 4],
    entry: Partition,
    incarnations: BTreeMap<String, u64>,
    desired: Vec<String>,
}

fn index(id: &str) -> usize {
    IDS.iter().position(|other| *other == id).unwrap()
}

impl World {
    fn new() -> Self {
        let node = Node {
            session: 1,
            incarnation: 1,
            silence: None,
            registered: true,
            leaving: false,
            draining: false,
            clock_off: false,
            settled: true,
            complete: false,
        };
        let desired = ["a", "b"].map(str::to_owned).to_vec();
        Self { nodes: [node; 4], entry: Partition::default(), incarnations: BTreeMap::new(), desired }
    }

    fn standing(&self, id: &str) -> Standing {
        let node = &self.nodes[index(id)];
        let holder = if !node.registered {
            Holder::Removed
        } else if self.incarnations.get(id).is_some_and(|known| *known != node.incarnation) {
            Holder::DataLost
        } else if let Some(silence) = node.silence {
            silence
        } else if self.entry.sessions.get(id).is_some_and(|known| *known != node.session) {
            Holder::Restarted { settled: node.settled }
        } else {
            Holder::Alive
        };
        let accepts = node.registered && node.silence.is_none() && !node.leaving && !node.draining;
        Standing { holder, session: node.session, accepts, leaving: node.leaving, clock_off: node.clock_off }
    }

    fn next(&self) -> Option<Step> {
        let standing = |id: &str| self.standing(id);
        next_step(&self.entry, View { desired: &self.desired, write_quorum: None, may_copy: true, standing: &standing })
    }

    fn is_process(&self, id: &str) -> bool {
        let node = &self.nodes[index(id)];
        let is_holder = self.incarnations.get(id) == Some(&node.incarnation);
        node.silence.is_none() && is_holder && self.entry.sessions.get(id) == Some(&node.session)
    }

    /// A write that every in-sync process acknowledges; the others do not have it.
    fn write(&mut self) {
        if self.entry.primary.is_some() && self.entry.in_sync.iter().all(|id| self.is_process(id)) {
            for id in IDS {
                self.nodes[index(id)].complete &= self.entry.in_sync.iter().any(|other| other == id);
            }
        }
    }

    fn asked(&self, kind: PartitionChange, subject: &str) -> Option<Step> {
        let primary = self.entry.primary.clone().filter(|primary| self.is_process(primary))?;
        let session = self.entry.sessions[&primary];
        let subject = subject.to_owned();
        let asked = ChangePartition { node_id: primary, session, epoch: self.entry.epoch, change: kind, subject };
        change(&self.entry, &asked, &|id| self.standing(id))
    }

    /// What master and primary do as soon as they can.
    fn progress(&self) -> Option<Step> {
        self.next()
            .or_else(|| {
                let other = |id: &&String| self.entry.primary.as_ref() != Some(*id) && !self.is_process(id);
                self.asked(PartitionChange::Remove, self.entry.in_sync.iter().find(other)?)
            })
            .or_else(|| self.asked(PartitionChange::CaughtUp, self.entry.learners.first()?))
            .or_else(|| self.asked(PartitionChange::HandOver, self.entry.successor.as_ref()?))
    }

    fn event(&mut self, target: usize, event: u8) {
        let node = &mut self.nodes[target];
        match event {
            0 => node.silence = Some(Holder::Silent),
            1 => node.silence = node.silence.map(|_| Holder::Gone),
            2 => node.silence = None,
            3 => {
                *node = Node {
                    session: node.session + 1,
                    silence: None,
                    leaving: false,
                    settled: false,
                    registered: true,
                    ..*node
                };
            }
            4 => node.settled = true,
            5 => {
                let incarnation = node.incarnation + 1;
                *node = Node {
                    incarnation,
                    session: 1,
                    silence: None,
                    complete: false,
                    leaving: false,
                    registered: true,
                    ..*node
                };
            }
            6 => *node = Node { registered: false, draining: false, silence: Some(Holder::Gone), ..*node },
            7 => node.leaving = node.silence.is_none(),
            8 => node.draining = !node.draining,
            9 => self.desired = vec![IDS[target].to_owned(), IDS[(target + 1) % 4].to_owned()],
            10 => self.desired = vec![IDS[target].to_owned(), IDS[(target + 2) % 4].to_owned()],
            11 => node.clock_off = !node.clock_off,
            _ => self.write(),
        }
    }

    fn take(&mut self, step: Step) {
        let Step { next, reason } = step;
        match reason {
            Reason::Assigned | Reason::Reassigned => {
                // What is in no other copy is restored from the object store, or lost.
                self.nodes.iter_mut().for_each(|node| node.complete = false);
                self.nodes[index(next.primary.as_ref().unwrap())].complete = true;
                self.incarnations.clear();
            }
            Reason::CaughtUp => {
                for id in next.in_sync.iter().filter(|id| !self.entry.in_sync.contains(id)) {
                    self.nodes[index(id)].complete = true;
                }
            }
            _ => {}
        }
        self.incarnations.retain(|id, _| next.sessions.contains_key(id));
        for id in next.sessions.keys() {
            self.incarnations.entry(id.clone()).or_insert(self.nodes[index(id)].incarnation);
        }
        self.entry = next;
    }
}

fn check(world: &World, step: &Step) -> Result<(), TestCaseError> {
    let (current, Step { next, reason }) = (&world.entry, step);
    let primary = next.primary.as_ref().unwrap();
    prop_assert_eq!(next.epoch, current.epoch + 1);
    prop_assert_eq!(next.in_sync.first(), Some(primary));
    let members: Vec<&String> = next.in_sync.iter().chain(&next.learners).collect();
    let distinct: BTreeSet<&String> = members.iter().copied().collect();
    prop_assert_eq!(members.len(), distinct.len());
    prop_assert_eq!(next.sessions.keys().collect::<BTreeSet<_>>(), distinct);
    prop_assert!(next.successor.iter().all(|successor| successor != primary && next.in_sync.contains(successor)));
    if matches!(reason, Reason::Assigned | Reason::Reassigned) {
        prop_assert_eq!(next.generation, next.epoch);
        let lost = |id: &String| matches!(world.standing(id).holder, Holder::Removed | Holder::DataLost);
        prop_assert!(current.in_sync.iter().all(lost));
        return Ok(());
    }
    prop_assert_eq!(next.generation, current.generation);
    let could =
        |id: &&String| current.in_sync.contains(id) || *reason == Reason::CaughtUp && current.learners.contains(id);
    prop_assert!(next.in_sync.iter().all(|id| could(&id)));
    prop_assert!(current.in_sync.contains(primary));
    prop_assert!(world.nodes[index(primary)].complete, "{reason:?} forgets acknowledged writes");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens to the nodes, in whatever order: the primary has every acknowledged write, unless every copy
    /// that had them is lost.
    #[test]
    fn no_step_forgets_an_acknowledged_write(
        events in proptest::collection::vec((0usize..4, 0u8..15, 0u8..8), 1..120),
    ) {
        let mut world = World::new();
        for (target, event, asked) in events {
            world.event(target, event);
            let step = match asked {
                0 => world.asked(PartitionChange::CaughtUp, IDS[target]),
                1 => world.asked(PartitionChange::Remove, IDS[target]),
                2 => world.asked(PartitionChange::HandOver, IDS[target]),
                3 => world.asked(PartitionChange::StepDown, IDS[target]),
                _ => world.next(),
            };
            if let Some(step) = step {
                check(&world, &step)?;
                world.take(step);
            }
        }
    }

    /// Whatever happened before: once one clock is right, that one's node leads, and the entry rests.
    #[test]
    fn in_quiet_times_no_node_leads_whose_clock_is_off(
        events in proptest::collection::vec((0usize..4, 0u8..15), 1..60), right in 0usize..2,
    ) {
        let mut world = World::new();
        for (target, event) in events {
            world.event(target, event);
            if let Some(step) = world.progress() {
                world.take(step);
            }
        }
        world.desired = ["a", "b"].map(str::to_owned).to_vec();
        for (node, id) in world.nodes.iter_mut().zip(0..) {
            let clock_off = id != right;
            *node = Node { silence: None, registered: true, leaving: false, draining: false, clock_off, settled: true, ..*node };
        }
        for _ in 0..20 {
            let Some(step) = world.progress() else { break };
            check(&world, &step)?;
            world.take(step);
        }
        prop_assert_eq!(world.next(), None);
        prop_assert_eq!(world.entry.primary.as_deref(), Some(IDS[right]));
        prop_assert_eq!(world.entry.in_sync.len(), 2);
    }

    /// Once nothing happens any more, an entry comes to its desired holders in a few steps, and stays.
    #[test]
    fn in_quiet_times_every_entry_becomes_what_is_desired(
        events in proptest::collection::vec((0usize..4, 0u8..15), 1..60),
    ) {
        let mut world = World::new();
        for (target, event) in events {
            world.event(target, event);
            if let Some(step) = world.progress() {
                world.take(step);
            }
        }
        for node in &mut world.nodes {
            *node = Node {
                silence: None,
                registered: true,
                leaving: false,
                draining: false,
                clock_off: false,
                settled: true,
                ..*node
            };
        }
        for _ in 0..20 {
            let Some(step) = world.progress() else { break };
            check(&world, &step)?;
            world.take(step);
        }
        prop_assert_eq!(world.next(), None);
        prop_assert_eq!(world.entry.primary.as_ref(), world.desired.first());
        let sorted = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        prop_assert_eq!(sorted(&world.entry.in_sync), sorted(&world.desired));
        prop_assert!(world.entry.in_sync.iter().all(|id| world.is_process(id)));
        prop_assert!(world.entry.learners.is_empty() && world.entry.successor.is_none());
    }
}
