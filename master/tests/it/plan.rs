//! What the planner does, at times that the tests choose.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cairn_api_spec::cluster::{Heartbeat, PartitionChange, Replication, Transfer};
use cairn_master::{
    map::{Map, StoredPartition},
    plan::{Planner, Sight, StuckCopy},
    rebalance::Limits,
    registry::Member,
};
use cairn_placement::{Expected, Reason, change};
use jiff::Timestamp;

use crate::{
    registry::{Known, PATIENCE, at},
    support::{asked, heartbeat, node},
};

const STUCK_AFTER: f64 = 60.0;

/// A cluster whose nodes all beat, and that moves only when a test says so.
struct Played {
    known: Known,
    map: Map,
    planner: Planner,
    limits: Limits,
    /// What each node says of its copies.
    transfers: BTreeMap<String, Vec<Transfer>>,
    /// When they last said it.
    beaten: f64,
}

impl Played {
    async fn new(partitions: u32, max_moves: u32) -> Self {
        let known = Known::new().await;
        let map = Map::open(known.store.clone(), partitions).await.unwrap();
        let planner = Planner::new(160, Replication { factor: 2, ..Replication::default() }, &map);
        let limits = Limits { paused: false, max_moves, bytes_per_second: 0 };
        Self { known, map, planner, limits, transfers: BTreeMap::new(), beaten: 0.0 }
    }

    async fn join(&mut self, id: &str, seconds: f64) {
        self.known.registry.register(node(id), at(seconds)).await.unwrap();
        self.transfers.insert(id.to_owned(), Vec::new());
    }

    fn beat(&self) {
        for (id, transfers) in &self.transfers {
            let heartbeat = Heartbeat { transfers: transfers.clone(), ..heartbeat() };
            self.known.registry.beat(id, heartbeat, at(self.beaten), Timestamp::UNIX_EPOCH).unwrap();
        }
    }

    /// One look of the controller. Returns the copies that were given up.
    async fn look(&mut self, seconds: f64) -> Vec<StuckCopy> {
        while self.beaten < seconds {
            self.beaten = seconds.min(self.beaten + 1.0);
            self.beat();
        }
        if self.map.is_behind().await.unwrap() {
            self.map.reload().await.unwrap();
        }
        let members = self.known.registry.members();
        let sight = sight(&members, seconds);
        let expected = Expected {
            stuck_after: Duration::from_secs_f64(STUCK_AFTER),
            bytes_per_second: self.limits.bytes_per_second,
            page_bytes: 1 << 20,
        };
        let stuck = self.planner.watch(&self.map, sight, expected);
        self.planner.propose(&self.map, sight);
        let steps = self.planner.steps(&self.map, sight, self.limits);
        let incarnation = |id: &str| members.get(id).map(|member| member.registration().incarnation);
        let entries = steps.iter().map(|step| {
            let id = step.next.id;
            self.map.get(id).unwrap().after(step, incarnation, self.planner.planned(id))
        });
        let entries: Vec<_> = entries.collect();
        if !entries.is_empty() {
            self.map.replace(entries).await.unwrap();
        }
        stuck
    }

    /// Plays the primary: the learner of a partition came in sync.
    async fn catch_up(&mut self, partition: u32, learner: &str, seconds: f64) {
        self.ask(partition, PartitionChange::CaughtUp, learner, Reason::CaughtUp, seconds).await;
        self.planner.caught_up(partition, learner);
    }

    async fn ask(&mut self, partition: u32, kind: PartitionChange, subject: &str, reason: Reason, seconds: f64) {
        let members = self.known.registry.members();
        let sight = sight(&members, seconds);
        let stored = self.map.get(partition).unwrap();
        let asked = asked(&stored.partition, kind, subject);
        let step = change(&stored.partition, &asked, &|id| self.planner.standing(stored, sight, id)).unwrap();
        assert_eq!(step.reason, reason);
        let after = stored.after(&step, |_| Some(1), self.planner.planned(partition));
        self.map.replace(vec![after]).await.unwrap();
    }

    /// The copies that are being made: partition and learner.
    fn learners(&self) -> Vec<(u32, String)> {
        let learners = |stored: &StoredPartition| {
            let entry = stored.partition.clone();
            entry.learners.into_iter().map(move |learner| (entry.id, learner))
        };
        self.map.partitions().flat_map(learners).collect()
    }

    fn learners_at(&self, id: &str) -> Vec<u32> {
        self.learners().into_iter().filter(|(_, learner)| learner == id).map(|(partition, _)| partition).collect()
    }

    /// Plays everybody until nothing is left to do.
    async fn settle(&mut self, seconds: f64) {
        let mut before = None;
        while before != Some(self.map.revision()) {
            before = Some(self.map.revision());
            self.look(seconds).await;
            for (partition, learner) in self.learners() {
                self.catch_up(partition, &learner, seconds).await;
            }
            let successor = |stored: &StoredPartition| Some((stored.partition.id, stored.partition.successor.clone()?));
            let named: Vec<_> = self.map.partitions().filter_map(successor).collect();
            for (partition, successor) in named {
                self.ask(partition, PartitionChange::HandOver, &successor, Reason::HandedOver, seconds).await;
            }
        }
    }
}

fn sight(members: &BTreeMap<String, Member>, seconds: f64) -> Sight<'_> {
    Sight { members, patience: PATIENCE, now: at(seconds) }
}

fn transfer(partition: u32, bytes: u64) -> Transfer {
    Transfer { partition, bytes, total_bytes: 1 << 30, complete: false }
}

#[tokio::test]
async fn a_copy_that_stands_still_takes_no_place_and_then_goes_to_another_node() {
    let mut played = Played::new(8, 1).await;
    played.join("a", 0.0).await;
    played.join("b", 0.0).await;
    played.settle(10.0).await;
    // One of the two is replaced by force, and the new one never reports.
    played.known.registry.remove("b", at(10.0)).await.unwrap();
    played.transfers.remove("b");
    played.join("c", 10.0).await;
    // It takes over, it learns, it is seen to learn.
    for seconds in [98.0, 99.0, 100.0] {
        played.look(seconds).await;
    }
    let first = played.learners();
    assert_eq!((first.len(), first[0].1.as_str()), (1, "c"));
    // The second gets the place of the first when that has stood still for a while, long before it is given up.
    played.look(114.0).await;
    assert_eq!(played.learners().len(), 1);
    played.look(115.0).await;
    assert_eq!(played.learners().len(), 2);
    // With another node there, what is stuck goes there.
    played.join("d", 115.0).await;
    for seconds in 116..160 {
        assert_eq!(played.look(f64::from(seconds)).await, []);
    }
    let stuck = StuckCopy { partition: first[0].0, node: "c".to_owned() };
    assert_eq!(played.look(160.0).await, std::slice::from_ref(&stuck));
    assert!(!played.learners_at("c").contains(&stuck.partition));
    for seconds in 161..170 {
        played.look(f64::from(seconds)).await;
        assert!(!played.learners_at("c").contains(&stuck.partition), "at {seconds} s");
        if played.learners_at("d").contains(&stuck.partition) {
            return;
        }
    }
    panic!("{:?} was not copied to another node: {:?}", stuck, played.learners());
}

#[tokio::test]
async fn a_stuck_copy_is_tried_again_later_and_each_time_later_until_it_is_in_sync() {
    let mut played = Played::new(1, 1).await;
    played.join("a", 0.0).await;
    played.look(0.0).await;
    played.join("b", 0.0).await;
    let (mut began, mut seconds, mut pauses) = (Vec::new(), 10, Vec::new());
    let mut given_up = 0;
    while pauses.len() < 8 && seconds < 10_000 {
        let stuck = !played.look(f64::from(seconds)).await.is_empty();
        if stuck {
            given_up = seconds;
        } else if !played.learners().is_empty() && began.last().is_none_or(|began| *began < given_up) {
            began.push(seconds);
            if given_up > 0 {
                pauses.push(seconds - given_up);
            }
        }
        seconds += 1;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_800, 1_800]);
    played.catch_up(0, "b", f64::from(seconds)).await;
    let now = f64::from(seconds);
    played.ask(0, PartitionChange::Remove, "b", Reason::Late, now).await;
    played.look(now + 1.0).await;
    assert_eq!(played.learners(), [(0, "b".to_owned())]);
    // The next pause is a short one again.
    for (seconds, is_learned) in [(2.0, true), (61.0, true), (62.0, false), (91.0, false), (92.0, true)] {
        played.look(now + seconds).await;
        assert_eq!(!played.learners().is_empty(), is_learned, "after {seconds} s");
    }
    assert_eq!(played.learners(), [(0, "b".to_owned())]);
}

#[tokio::test]
async fn copies_that_come_forward_keep_their_places_for_as_long_as_they_take() {
    let mut played = Played::new(8, 2).await;
    played.join("a", 0.0).await;
    played.look(0.0).await;
    played.join("b", 0.0).await;
    played.look(1.0).await;
    let first = played.learners_at("b");
    assert_eq!(first.len(), 2);
    for seconds in 2..500_u32 {
        let says = |partition: &u32| transfer(*partition, u64::from(seconds) / 14);
        played.transfers.insert("b".to_owned(), first.iter().map(says).collect());
        assert_eq!(played.look(f64::from(seconds)).await, []);
        assert_eq!(played.learners_at("b"), first);
    }
    // A complete one needs no place any more.
    let complete = Transfer { complete: true, ..transfer(first[0], 40) };
    played.transfers.insert("b".to_owned(), vec![complete, transfer(first[1], 40)]);
    played.look(500.0).await;
    assert_eq!(played.learners_at("b").len(), 3);
}

#[tokio::test]
async fn lost_copies_do_not_wait_for_moves() {
    let mut played = Played::new(16, 2).await;
    for id in ["a", "b", "c"] {
        played.join(id, 0.0).await;
    }
    played.settle(1.0).await;
    played.join("d", 2.0).await;
    played.look(3.0).await;
    let learned = |played: &Played| -> BTreeSet<u32> { played.learners().into_iter().map(|(id, _)| id).collect() };
    let moves = learned(&played);
    assert_eq!(moves.len(), 2);
    // A copy is lost whose partition nobody is learning.
    let lost = played.map.partitions().find(|stored| stored.partition.learners.is_empty()).unwrap().partition.clone();
    played.ask(lost.id, PartitionChange::Remove, &lost.in_sync[1], Reason::Late, 3.0).await;
    played.look(8.0).await;
    assert_eq!(learned(&played), moves.into_iter().chain([lost.id]).collect());
}
