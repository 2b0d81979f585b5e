//! What the transitions of a partition's entry promise.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};
use cairn_placement::{Holder, Reason, Standing, Step, View, change, is_done, next_step};
use proptest::prelude::*;

/// An entry at epoch 5 whose holders have session 1; the first in-sync node is the primary.
fn entry(in_sync: &[&str], learners: &[&str]) -> Partition {
    let names = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let sessions = in_sync.iter().chain(learners).map(|&id| (id.to_owned(), 1)).collect();
    Partition {
        id: 3,
        epoch: 5,
        generation: 1,
        primary: in_sync.first().map(|&id| id.to_owned()),
        in_sync: names(in_sync),
        learners: names(learners),
        sessions,
        successor: None,
    }
}

fn alive() -> Standing {
    Standing { holder: Holder::Alive, session: 1, accepts: true, leaving: false }
}

fn as_holder(holder: Holder) -> Standing {
    let session = if matches!(holder, Holder::Restarted { .. }) { 2 } else { 1 };
    let accepts = matches!(holder, Holder::Alive | Holder::Restarted { .. } | Holder::DataLost);
    Standing { holder, session, accepts, leaving: false }
}

fn leaving() -> Standing {
    Standing { accepts: false, leaving: true, ..alive() }
}

struct Case {
    desired: Vec<String>,
    standings: Vec<(&'static str, Standing)>,
    write_quorum: Option<usize>,
    may_copy: bool,
}

fn case(desired: &[&str], standings: &[(&'static str, Standing)]) -> Case {
    let desired = desired.iter().map(|&id| id.to_owned()).collect();
    Case { desired, standings: standings.to_vec(), write_quorum: None, may_copy: true }
}

impl Case {
    fn step(&self, current: &Partition) -> Option<Step> {
        let standing = |id: &str| self.standings.iter().find(|(other, _)| *other == id).map_or(alive(), |(_, s)| *s);
        let view = View {
            desired: &self.desired,
            write_quorum: self.write_quorum,
            may_copy: self.may_copy,
            standing: &standing,
        };
        next_step(current, view)
    }

    fn expect(&self, current: &Partition, reason: Reason, next: &Partition) {
        let expected = Step { next: Partition { epoch: current.epoch + 1, ..next.clone() }, reason };
        assert_eq!(self.step(current), Some(expected));
    }

    fn expect_none(&self, current: &Partition) {
        assert_eq!(self.step(current), None);
    }
}

fn with_session(mut entry: Partition, id: &str, session: u64) -> Partition {
    entry.sessions.insert(id.to_owned(), session);
    entry
}

fn named(entry: Partition, successor: &str) -> Partition {
    Partition { successor: Some(successor.to_owned()), ..entry }
}

#[test]
fn a_partition_without_a_primary_is_assigned_to_the_first_that_can_take_it() {
    let empty = Partition { id: 3, ..Partition::default() };
    let assigned = |id| Partition { generation: 1, ..entry(&[id], &[]) };
    case(&["a", "b"], &[]).expect(&empty, Reason::Assigned, &assigned("a"));
    case(&["a", "b"], &[("a", as_holder(Holder::Silent))]).expect(&empty, Reason::Assigned, &assigned("b"));
    case(&[], &[]).expect_none(&empty);
}

#[test]
fn a_silent_primary_keeps_its_partitions_until_it_is_gone() {
    let current = entry(&["a", "b", "c"], &["d"]);
    let silent = ("a", as_holder(Holder::Silent));
    case(&["a", "b"], &[silent]).expect_none(&current);
    // Nor does it lose the replicas that may be all there is, should it not come back.
    case(&["a", "b"], &[silent, ("b", as_holder(Holder::Gone))]).expect_none(&current);
    for holder in [Holder::Gone, Holder::Removed, Holder::DataLost, Holder::Restarted { settled: false }] {
        let a_is = case(&["a", "b"], &[("a", as_holder(holder))]);
        let is_lost = matches!(holder, Holder::Removed | Holder::DataLost);
        let left: &[&str] = if is_lost { &["b", "c"] } else { &["b", "a", "c"] };
        a_is.expect(&current, Reason::Promoted, &entry(left, &[]));
    }
}

#[test]
fn the_replica_that_should_be_primary_is_promoted_and_takes_out_those_that_do_not_answer_itself() {
    let current = entry(&["a", "b", "c", "d"], &[]);
    let (a, b) = (("a", as_holder(Holder::Gone)), ("b", as_holder(Holder::Silent)));
    case(&["d", "a"], &[a, b]).expect(&current, Reason::Promoted, &entry(&["d", "a", "b", "c"], &[]));
    case(&["d", "a"], &[a, b, ("d", leaving())]).expect(&current, Reason::Promoted, &entry(&["c", "a", "b", "d"], &[]));
}

#[test]
fn a_restarted_primary_goes_on_when_no_replica_answers() {
    let current = entry(&["a", "b"], &["c"]);
    let a = ("a", as_holder(Holder::Restarted { settled: false }));
    for other in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }, Holder::DataLost, Holder::Removed]
    {
        let resumed = with_session(entry(&["a"], &[]), "a", 2);
        case(&["a", "b"], &[a, ("b", as_holder(other))]).expect(&current, Reason::Resumed, &resumed);
    }
}

#[test]
fn a_restarted_replica_goes_on_alone_only_when_its_old_promises_are_over() {
    let current = entry(&["a", "b"], &[]);
    for primary in [Holder::Gone, Holder::DataLost, Holder::Removed] {
        let b_is =
            |settled| case(&["a", "b"], &[("a", as_holder(primary)), ("b", as_holder(Holder::Restarted { settled }))]);
        b_is(false).expect_none(&current);
        b_is(true).expect(&current, Reason::Resumed, &with_session(entry(&["b"], &[]), "b", 2));
    }
}

#[test]
fn a_copy_that_may_come_back_with_its_data_is_waited_for() {
    let current = entry(&["a", "b"], &[]);
    for (a, b) in [
        (Holder::Gone, Holder::Gone),
        (Holder::DataLost, Holder::Silent),
        (Holder::Removed, Holder::Gone),
        (Holder::Gone, Holder::Removed),
    ] {
        case(&["c", "d"], &[("a", as_holder(a)), ("b", as_holder(b))]).expect_none(&current);
    }
}

#[test]
fn with_every_copy_lost_the_partition_begins_anew() {
    let current = entry(&["a", "b"], &["c"]);
    let lost = [("a", as_holder(Holder::DataLost)), ("b", as_holder(Holder::Removed))];
    let anew = Partition { generation: 6, ..entry(&["a"], &[]) };
    case(&["a", "c"], &lost).expect(&current, Reason::Reassigned, &anew);
}

#[test]
fn a_quorum_is_promoted_only_with_a_copy_of_every_write_in_it() {
    let current = entry(&["a", "b", "c"], &[]);
    let two_of_three = |a, b| {
        let standings = [("a", as_holder(a)), ("b", as_holder(b))];
        Case { write_quorum: Some(2), ..case(&["a", "b", "c"], &standings) }
    };
    two_of_three(Holder::Gone, Holder::Alive).expect(&current, Reason::Promoted, &entry(&["b", "a", "c"], &[]));
    for other in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: false }] {
        two_of_three(Holder::Gone, other).expect_none(&current);
    }
    let resumed = with_session(entry(&["b", "c"], &[]), "b", 2);
    two_of_three(Holder::Gone, Holder::Restarted { settled: true }).expect(&current, Reason::Resumed, &resumed);
    // Nor can a primary take over without the others' word, if they were restarted: it goes on with one of them.
    let unsettled = Holder::Restarted { settled: false };
    let two_restarted = |b| Case {
        write_quorum: Some(2),
        ..case(&["b", "a", "c"], &[("b", as_holder(b)), ("c", as_holder(unsettled))])
    };
    two_restarted(unsettled).expect_none(&current);
    let resumed = with_session(entry(&["a", "b"], &[]), "b", 2);
    two_restarted(Holder::Restarted { settled: true }).expect(&current, Reason::Resumed, &resumed);
    // With more copies lost than the promise covers, what is left goes on.
    two_of_three(Holder::DataLost, Holder::DataLost).expect(&current, Reason::Promoted, &entry(&["c"], &[]));
}

#[test]
fn a_replica_whose_data_are_gone_leaves_the_in_sync_set_and_any_other_is_the_primarys_to_judge() {
    let current = entry(&["a", "b"], &[]);
    for holder in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }] {
        case(&["a", "b"], &[("b", as_holder(holder))]).expect_none(&current);
    }
    for holder in [Holder::Removed, Holder::DataLost] {
        let b_is = case(&["a", "b"], &[("b", as_holder(holder))]);
        b_is.expect(&current, Reason::ReplicaLost, &entry(&["a"], &[]));
    }
}

#[test]
fn a_learner_that_is_silent_or_leaving_or_not_wanted_is_given_up() {
    let current = entry(&["a"], &["b"]);
    let dropped = entry(&["a"], &[]);
    for standing in [as_holder(Holder::Silent), as_holder(Holder::Restarted { settled: false }), leaving()] {
        case(&["a", "b"], &[("b", standing)]).expect(&current, Reason::LearnerDropped, &dropped);
    }
    case(&["a", "c"], &[]).expect(&current, Reason::LearnerDropped, &dropped);
}

#[test]
fn everyone_who_should_hold_the_partition_learns_it_at_once() {
    let all = ["b", "a", "c"];
    case(&all, &[]).expect(&entry(&["a"], &[]), Reason::LearnerAdded, &entry(&["a"], &["b", "c"]));
    case(&all, &[]).expect_none(&entry(&["a"], &["b", "c"]));
    Case { may_copy: false, ..case(&all, &[]) }.expect_none(&entry(&["a"], &[]));
    let standings = [("b", as_holder(Holder::Silent)), ("c", leaving())];
    case(&all, &standings).expect_none(&entry(&["a"], &[]));
}

#[test]
fn a_restarted_node_learns_again_under_its_new_session() {
    let asked = asks(PartitionChange::Remove, "b");
    let standing = |id: &str| if id == "b" { as_holder(Holder::Restarted { settled: false }) } else { alive() };
    let lost = change(&entry(&["a", "b"], &[]), &asked, &standing).unwrap().next;
    // No longer a holder, it is just a node that is there.
    let fresh = [("b", Standing { session: 2, ..alive() })];
    let learns = with_session(entry(&["a"], &["b"]), "b", 2);
    case(&["a", "b"], &fresh).expect(&lost, Reason::LearnerAdded, &Partition { epoch: 6, ..learns });
}

#[test]
fn a_leaving_primary_hands_over_and_a_leaving_replica_is_left_to_its_primary() {
    let current = entry(&["a", "b"], &[]);
    let a_leaves = case(&["a", "b"], &[("a", leaving())]);
    a_leaves.expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    a_leaves.expect_none(&named(current.clone(), "b"));
    let b_is_primary = case(&["b", "a"], &[("a", leaving())]);
    b_is_primary.expect_none(&entry(&["b", "a"], &[]));
    // Once its primary has taken it out, it is not copied to again.
    b_is_primary.expect_none(&entry(&["b"], &[]));
    case(&["a"], &[("a", leaving())]).expect_none(&entry(&["a"], &[]));
    case(&["a", "b"], &[("a", leaving()), ("b", leaving())]).expect_none(&current);
}

#[test]
fn the_desired_primary_is_named_when_it_is_in_sync() {
    let current = entry(&["a", "b"], &[]);
    let b_first = case(&["b", "a"], &[]);
    b_first.expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    b_first.expect_none(&named(current.clone(), "b"));
    case(&["b", "c"], &[]).expect_none(&entry(&["a", "b"], &["c"]));
    case(&["a", "b"], &[]).expect(&named(current.clone(), "b"), Reason::SuccessorWithdrawn, &current);
    let b_silent = case(&["b", "a"], &[("b", as_holder(Holder::Silent))]);
    b_silent.expect(&named(current.clone(), "b"), Reason::SuccessorWithdrawn, &current);
}

#[test]
fn others_are_released_once_everyone_wanted_is_in_sync_and_answers() {
    let current = entry(&["a", "b", "c", "d"], &[]);
    case(&["a", "c"], &[]).expect(&current, Reason::Released, &entry(&["a", "c"], &[]));
    case(&["a", "c"], &[("c", as_holder(Holder::Silent))]).expect_none(&current);
    case(&["a", "e"], &[]).expect_none(&entry(&["a", "b"], &["e"]));
}

fn asks(change: PartitionChange, subject: &str) -> ChangePartition {
    ChangePartition { node_id: "a".to_owned(), session: 1, epoch: 5, change, subject: subject.to_owned() }
}

#[test]
fn a_primary_may_ask_for_what_it_finds_out() {
    let current = entry(&["a", "b", "c"], &["d"]);
    for (kind, subject, reason, next) in [
        (PartitionChange::CaughtUp, "d", Reason::CaughtUp, entry(&["a", "b", "c", "d"], &[])),
        (PartitionChange::Remove, "c", Reason::Late, entry(&["a", "b"], &["d"])),
        (PartitionChange::Remove, "d", Reason::Late, entry(&["a", "b", "c"], &[])),
        (PartitionChange::HandOver, "c", Reason::HandedOver, entry(&["c", "a", "b"], &[])),
        (PartitionChange::StepDown, "b", Reason::SteppedDown, entry(&["b", "c"], &[])),
    ] {
        let asked = asks(kind, subject);
        let successor = if reason == Reason::CaughtUp { "b" } else { subject };
        let before = if kind == PartitionChange::Remove { current.clone() } else { named(current.clone(), successor) };
        assert!(!is_done(&before, &asked), "{asked:?}");
        let step = change(&before, &asked, &|_| alive()).unwrap();
        let successor = before.successor.filter(|_| reason == Reason::CaughtUp);
        assert_eq!(step, Step { next: Partition { epoch: 6, successor, ..next }, reason }, "{asked:?}");
        assert!(is_done(&step.next, &asked), "{asked:?}");
        assert_eq!(change(&step.next, &asked, &|_| alive()), None);
    }
}

#[test]
fn whoever_does_not_know_the_present_entry_may_ask_for_nothing() {
    let current = entry(&["a", "b"], &["c"]);
    let right = asks(PartitionChange::CaughtUp, "c");
    for wrong in [
        ChangePartition { epoch: 4, ..right.clone() },
        ChangePartition { epoch: 6, ..right.clone() },
        ChangePartition { session: 2, ..right.clone() },
        ChangePartition { node_id: "b".to_owned(), ..right.clone() },
        asks(PartitionChange::CaughtUp, "b"),
        asks(PartitionChange::CaughtUp, "d"),
        asks(PartitionChange::Remove, "a"),
        asks(PartitionChange::Remove, "d"),
        asks(PartitionChange::HandOver, "a"),
        asks(PartitionChange::HandOver, "c"),
        asks(PartitionChange::StepDown, "c"),
        asks(PartitionChange::StepDown, "a"),
    ] {
        assert_eq!(change(&current, &wrong, &|_| alive()), None, "{wrong:?}");
        assert!(!is_done(&current, &wrong), "{wrong:?}");
    }
}

#[test]
fn a_node_that_is_another_process_by_now_or_away_does_not_become_in_sync_or_primary() {
    let others = [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }, Holder::DataLost, Holder::Removed];
    for holder in others {
        let refused = |current: &Partition, asked: &ChangePartition, who: &str| {
            let standing = |id: &str| if id == who { as_holder(holder) } else { alive() };
            assert_eq!(change(current, asked, &standing), None, "{holder:?} {asked:?}");
        };
        refused(&entry(&["a"], &["b"]), &asks(PartitionChange::CaughtUp, "b"), "b");
        refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::HandOver, "b"), "b");
        refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::StepDown, "b"), "b");
        if !matches!(holder, Holder::Silent | Holder::Gone) {
            refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::Remove, "b"), "a");
        }
    }
}

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
        Standing { holder, session: node.session, accepts, leaving: node.leaving }
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
        events in proptest::collection::vec((0usize..4, 0u8..14, 0u8..8), 1..120),
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

    /// Once nothing happens any more, an entry comes to its desired holders in a few steps, and stays.
    #[test]
    fn in_quiet_times_every_entry_becomes_what_is_desired(
        events in proptest::collection::vec((0usize..4, 0u8..14), 1..60),
    ) {
        let mut world = World::new();
        for (target, event) in events {
            world.event(target, event);
            if let Some(step) = world.progress() {
                world.take(step);
            }
        }
        for node in &mut world.nodes {
            *node = Node { silence: None, registered: true, leaving: false, draining: false, settled: true, ..*node };
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
