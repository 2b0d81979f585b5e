//! What the proposal and the transitions promise.

use std::collections::HashMap;

use cairn_api_spec::cluster::Partition;
use cairn_placement::{Candidate, Holder, Reason, desired, next_step, promote};
use proptest::prelude::*;

const VNODES: u32 = 160;

fn node(id: &str) -> Candidate {
    Candidate { node_id: id.to_owned(), weight: 1.0, accepts: true }
}

fn nodes(seed: u32, count: usize) -> Vec<Candidate> {
    (0..count).map(|n| node(&format!("node-{seed}-{n}"))).collect()
}

fn fresh(nodes: &[Candidate], partitions: usize) -> Vec<Vec<String>> {
    desired(nodes, VNODES, &vec![Vec::new(); partitions], 1)
}

fn loads(map: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut loads = HashMap::new();
    for id in map.iter().flatten() {
        *loads.entry(id.as_str()).or_default() += 1;
    }
    loads
}

fn moved(before: &[Vec<String>], after: &[Vec<String>]) -> usize {
    before.iter().zip(after).filter(|(a, b)| a != b).count()
}

fn assert_balanced(map: &[Vec<String>], nodes: &[Candidate]) {
    let loads = loads(map);
    let average = map.len() as f64 / nodes.len() as f64;
    for node in nodes {
        let load = loads.get(node.node_id.as_str()).copied().unwrap_or(0) as f64;
        assert!(load >= average.floor().min(average * 0.95), "{} has {load} of {average}", node.node_id);
        assert!(load <= average.ceil().max(average * 1.05), "{} has {load} of {average}", node.node_id);
    }
}

#[test]
fn keys_are_spread_over_three_nodes_within_15_percent() {
    for seed in 0..20 {
        let nodes = nodes(seed, 3);
        let map = fresh(&nodes, 256);
        let mut keys: HashMap<&str, f64> = HashMap::new();
        for key in 0..30_000 {
            let name = format!("default\0key-{key}");
            let partition = cairn_api_spec::name::partition_of(name.as_bytes(), 256);
            *keys.entry(map[partition as usize][0].as_str()).or_default() += 1.0;
        }
        for (node, count) in keys {
            assert!((count / 10_000.0 - 1.0).abs() <= 0.15, "{node} has {count} of 10000");
        }
    }
}

#[test]
fn joins_move_the_newcomers_share_and_keep_the_balance_from_3_to_100_nodes() {
    for seed in 0..3 {
        let mut all = nodes(seed, 3);
        let mut map = fresh(&all, 256);
        let mut ratio = 0.0;
        for count in 3..100 {
            all.push(node(&format!("node-{seed}-{count}")));
            let after = desired(&all, VNODES, &map, 1);
            assert_balanced(&after, &all);
            ratio += moved(&map, &after) as f64 * all.len() as f64 / 256.0;
            map = after;
        }
        assert!(ratio / 97.0 <= 1.15, "a join moved {} of the newcomer's share on average", ratio / 97.0);
    }
}

#[test]
fn a_leave_moves_only_what_the_node_had_give_or_take_the_bounds() {
    let mut all = nodes(7, 10);
    let before = fresh(&all, 256);
    let gone = all.remove(4).node_id;
    let had = before.iter().filter(|h| h[0] == gone).count();
    let after = desired(&all, VNODES, &before, 1);
    assert_balanced(&after, &all);
    assert!(moved(&before, &after) <= had + 3, "{} moved, {had} had to", moved(&before, &after));
}

#[test]
fn a_silent_node_keeps_what_it_has_and_gets_nothing() {
    let mut all = nodes(1, 3);
    let before = fresh(&all, 256);
    all[0].accepts = false;
    assert_eq!(desired(&all, VNODES, &before, 1), before);
    all.push(node("newcomer"));
    let after = desired(&all, VNODES, &before, 1);
    assert!(after.iter().zip(&before).all(|(a, b)| a == b || a[0] != all[0].node_id));
    assert!(loads(&after)["newcomer"] >= 60);
}

#[test]
fn weights_give_shares() {
    let mut all = nodes(2, 3);
    all[0].weight = 2.0;
    let map = fresh(&all, 256);
    let loads = loads(&map);
    assert!((121..=135).contains(&loads[all[0].node_id.as_str()]), "{loads:?}");
}

#[test]
fn without_nodes_there_is_no_proposal() {
    assert_eq!(fresh(&[], 4), vec![Vec::<String>::new(); 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_the_nodes_does_not_matter_and_the_proposal_is_its_own_fixed_point(
        seed in any::<u32>(), count in 1usize..40, partitions in 1usize..400, factor in 1usize..4, rotate in 0usize..40,
    ) {
        let mut all = nodes(seed, count);
        let empty = vec![Vec::new(); partitions];
        let map = desired(&all, VNODES, &empty, factor);
        all.rotate_left(rotate % count);
        prop_assert_eq!(&desired(&all, VNODES, &empty, factor), &map);
        prop_assert_eq!(&desired(&all, VNODES, &map, factor), &map);
        for holders in &map {
            let distinct: std::collections::HashSet<_> = holders.iter().collect();
            prop_assert_eq!(distinct.len(), factor.min(count));
        }
    }

    #[test]
    fn any_weights_end_and_place_every_partition(weights in proptest::collection::vec(0.1f64..100.0, 1..12), factor in 1usize..4) {
        let all: Vec<_> = weights.iter().enumerate()
            .map(|(n, weight)| Candidate { weight: *weight, ..node(&n.to_string()) }).collect();
        let map = desired(&all, VNODES, &vec![Vec::new(); 64], factor);
        prop_assert!(map.iter().all(|holders| holders.len() == factor.min(all.len())));
    }

    /// Whatever happens to the nodes, in whatever order: a copy that holds acknowledged writes is never forgotten, and
    /// every step raises the epoch by one.
    #[test]
    fn no_step_forgets_the_last_copy(events in proptest::collection::vec((0usize..4, 0u8..5, any::<bool>()), 1..80)) {
        let ids = ["a", "b", "c", "d"];
        let mut standing = [Holder::Alive; 4];
        let mut current = Partition::default();
        for (target, event, promotes) in events {
            standing[target] = match event {
                0 | 1 => Holder::Alive,
                2 => Holder::Silent,
                3 => Holder::Removed,
                _ => Holder::DataLost,
            };
            let holder = |id: &str| standing[ids.iter().position(|i| *i == id).unwrap()];
            let learner = current.learners.first().cloned().filter(|_| promotes);
            let step = match learner {
                Some(learner) => promote(&current, &learner),
                None => next_step(&current, &[ids[target].to_owned()], &holder),
            };
            let Some(step) = step else { continue };
            prop_assert_eq!(step.next.epoch, current.epoch + 1);
            prop_assert_eq!(step.next.in_sync.first(), step.next.primary.as_ref());
            if step.reason == Reason::Reassigned {
                prop_assert!(current.in_sync.iter().all(|id| matches!(holder(id), Holder::Removed | Holder::DataLost)));
            } else if step.reason != Reason::Promoted && current.primary.is_some() {
                prop_assert_eq!(&step.next.in_sync, &current.in_sync);
            }
            current = step.next;
        }
    }
}

fn held_by(primary: &str, learners: &[&str]) -> Partition {
    Partition {
        id: 3,
        epoch: 5,
        generation: 1,
        primary: Some(primary.to_owned()),
        in_sync: vec![primary.to_owned()],
        learners: learners.iter().map(|&id| id.to_owned()).collect(),
    }
}

#[test]
fn a_move_goes_by_a_learner_that_takes_over() {
    let alive = |_: &str| Holder::Alive;
    let step = next_step(&held_by("a", &[]), &["b".to_owned()], &alive).unwrap();
    assert_eq!((&step.next.learners, step.reason), (&vec!["b".to_owned()], Reason::LearnerAdded));
    assert_eq!(next_step(&step.next, &["b".to_owned()], &alive), None);
    let step = promote(&step.next, "b").unwrap();
    assert_eq!(step.next, Partition { epoch: 7, ..held_by("b", &[]) });
    assert_eq!(promote(&step.next, "b"), None);
}

#[test]
fn a_learner_that_is_silent_or_no_longer_wanted_is_dropped() {
    let b_silent = |id: &str| if id == "b" { Holder::Silent } else { Holder::Alive };
    let step = next_step(&held_by("a", &["b"]), &["b".to_owned()], &b_silent).unwrap();
    assert_eq!((step.next.learners.len(), step.reason), (0, Reason::LearnerDropped));
    assert_eq!(next_step(&step.next, &["b".to_owned()], &b_silent), None);
    let step = next_step(&held_by("a", &["b"]), &["a".to_owned()], &|_| Holder::Alive).unwrap();
    assert_eq!(step.reason, Reason::LearnerDropped);
}

#[test]
fn a_silent_primary_keeps_its_partition_and_a_lost_one_does_not() {
    let as_a = |standing| move |id: &str| if id == "a" { standing } else { Holder::Alive };
    let current = held_by("a", &[]);
    assert_eq!(next_step(&current, &["b".to_owned()], &as_a(Holder::Silent)), None);
    for lost in [Holder::Removed, Holder::DataLost] {
        let step = next_step(&current, &["b".to_owned()], &as_a(lost)).unwrap();
        assert_eq!(step.next, Partition { epoch: 6, generation: 6, ..held_by("b", &[]) });
    }
    let again = next_step(&current, &["a".to_owned()], &as_a(Holder::DataLost)).unwrap();
    assert_eq!((again.next.primary.as_deref(), again.reason), (Some("a"), Reason::Reassigned));
}
