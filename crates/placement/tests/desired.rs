//! What the ring's proposal promises.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_placement::{Candidate, desired};
use proptest::prelude::*;

const VNODES: u32 = 160;

type Map = Vec<Vec<String>>;

fn node(id: &str) -> Candidate {
    Candidate { node_id: id.to_owned(), weight: 1.0, zone: None, accepts: true, leads: true, barred: BTreeSet::new() }
}

fn in_zone(id: &str, zone: usize) -> Candidate {
    Candidate { zone: Some(format!("zone-{zone}")), ..node(id) }
}

fn nodes(seed: u32, count: usize) -> Vec<Candidate> {
    (0..count).map(|n| node(&format!("node-{seed}-{n}"))).collect()
}

fn fresh(nodes: &[Candidate], partitions: usize, factor: usize) -> Map {
    desired(nodes, VNODES, &vec![Vec::new(); partitions], factor)
}

fn count<'a>(ids: impl Iterator<Item = &'a String>) -> HashMap<&'a str, usize> {
    let mut count = HashMap::new();
    for id in ids {
        *count.entry(id.as_str()).or_default() += 1;
    }
    count
}

/// Copies at nodes that did not hold the partition before.
fn moved(before: &Map, after: &Map) -> usize {
    let new = |(before, after): (&Vec<String>, &Vec<String>)| after.iter().filter(|id| !before.contains(id)).count();
    before.iter().zip(after).map(new).sum()
}

/// Every node within 5 % and one of its share, which is `average` times its weight, of the copies and of the primaries.
fn assert_balanced(map: &Map, nodes: &[Candidate], factor: usize) {
    let weights: f64 = nodes.iter().map(|node| node.weight).sum();
    let copies = count(map.iter().flatten());
    let primaries = count(map.iter().filter_map(|holders| holders.first()));
    for node in nodes {
        let share = map.len() as f64 * node.weight / weights;
        for (what, counted, average) in [("copies", &copies, share * factor as f64), ("primaries", &primaries, share)] {
            let load = counted.get(node.node_id.as_str()).copied().unwrap_or(0) as f64;
            let allowed = average * 0.95 - 1.0..=average * 1.05 + 1.0;
            assert!(allowed.contains(&load), "{} has {load} {what} of {average}", node.node_id);
        }
    }
}

/// The fewest copies that the most crowded zone must have, for each partition.
fn least_crowd(nodes: &[Candidate], factor: usize) -> usize {
    let mut zones: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    for node in nodes {
        *zones.entry(&node.zone).or_default() += 1;
    }
    let copies = factor.min(nodes.len());
    (0..=copies).find(|most| zones.values().map(|size| size.min(most)).sum::<usize>() >= copies).unwrap()
}

fn crowd(nodes: &[Candidate], holders: &[String]) -> usize {
    let zone = |id: &String| nodes.iter().find(|node| node.node_id == *id).unwrap().zone.clone();
    let mut zones: HashMap<Option<String>, usize> = HashMap::new();
    for id in holders {
        *zones.entry(zone(id)).or_default() += 1;
    }
    zones.into_values().max().unwrap_or(0)
}

#[test]
fn keys_are_spread_over_three_nodes_within_15_percent() {
    for seed in 0..20 {
        let nodes = nodes(seed, 3);
        let map = fresh(&nodes, 256, 2);
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
    for factor in 1..=3 {
        let mut all = nodes(factor as u32, 3);
        let mut map = fresh(&all, 256, factor);
        let mut ratio = 0.0;
        for count in 3..100 {
            all.push(node(&format!("node-{factor}-{count}")));
            let after = desired(&all, VNODES, &map, factor);
            assert_balanced(&after, &all, factor);
            let share = (256 * factor) as f64 / all.len() as f64;
            let moved = moved(&map, &after) as f64;
            assert!(moved <= share * 1.15 + 1.0, "{factor} copies: join {count} moved {moved}, its share is {share}");
            ratio += moved / share;
            map = after;
        }
        assert!(ratio / 97.0 <= 1.15, "a join moved {} of the newcomer's share on average", ratio / 97.0);
    }
}

#[test]
fn joins_of_equal_zones_move_no_more_either() {
    for factor in 2..=3 {
        let mut all: Vec<_> = (0..3).map(|n| in_zone(&format!("node-{n}"), n)).collect();
        let mut map = fresh(&all, 256, factor);
        for count in 3..60 {
            all.push(in_zone(&format!("node-{count}"), count % 3));
            let after = desired(&all, VNODES, &map, factor);
            assert!(after.iter().all(|holders| crowd(&all, holders) == 1), "{factor} copies, node {count}");
            if all.len() % 3 == 0 {
                assert_balanced(&after, &all, factor);
            }
            let share = (256 * factor) as f64 / all.len() as f64;
            let moved = moved(&map, &after);
            assert!(moved as f64 <= share * 1.15 + 1.0, "{factor} copies: join {count} moved {moved} of {share}");
            map = after;
        }
    }
}

#[test]
fn a_thousand_nodes_are_placed_and_joined() {
    for (partitions, factor) in [(256, 1), (256, 3), (4_096, 3)] {
        let mut all: Vec<_> = (0..999).map(|n| in_zone(&format!("node-{n}"), n % 3)).collect();
        let before = fresh(&all, partitions, factor);
        assert_balanced(&before, &all, factor);
        all.push(in_zone("newcomer", 0));
        let after = desired(&all, VNODES, &before, factor);
        assert_balanced(&after, &all, factor);
        assert!(after.iter().all(|holders| crowd(&all, holders) == 1));
        let share = (partitions * factor) as f64 / 1_000.0;
        assert!(moved(&before, &after) as f64 <= share * 1.15 + 1.0);
    }
}

#[test]
fn a_leave_moves_only_what_the_node_had_give_or_take_the_bounds() {
    for factor in 1..=3 {
        let mut all = nodes(7, 10);
        let before = fresh(&all, 256, factor);
        let gone = all.remove(4).node_id;
        let had = before.iter().filter(|holders| holders.contains(&gone)).count();
        let after = desired(&all, VNODES, &before, factor);
        assert_balanced(&after, &all, factor);
        assert!(moved(&before, &after) <= had + 3 * factor, "{} moved, {had} had to", moved(&before, &after));
    }
}

#[test]
fn a_silent_node_keeps_what_it_has_and_gets_nothing() {
    for factor in 1..=2 {
        let mut all = nodes(1, 3);
        let before = fresh(&all, 256, factor);
        all[0].accepts = false;
        assert_eq!(desired(&all, VNODES, &before, factor), before);
        all.push(node("newcomer"));
        let after = desired(&all, VNODES, &before, factor);
        let silent = &all[0].node_id;
        assert!(after.iter().zip(&before).all(|(a, b)| b.contains(silent) || !a.contains(silent)));
        assert!(after.iter().zip(&before).all(|(a, b)| b[0] == *silent || a[0] != *silent));
        assert!(count(after.iter().flatten())["newcomer"] >= 60 * factor);
    }
}

#[test]
fn weights_give_shares() {
    for factor in 1..=2 {
        let mut all = nodes(2, 5);
        all[0].weight = 2.0;
        assert_balanced(&fresh(&all, 256, factor), &all, factor);
    }
}

#[test]
fn copies_stand_in_different_zones_even_where_that_overloads_a_node() {
    let mut all: Vec<_> = (0..5).map(|n| in_zone(&format!("node-{n}"), 0)).collect();
    let before = fresh(&all, 256, 2);
    assert_balanced(&before, &all, 2);
    all.push(in_zone("alone", 1));
    let after = desired(&all, VNODES, &before, 2);
    assert_eq!(count(after.iter().flatten())["alone"], 256);
    assert_eq!(moved(&before, &after), 256);
    let loads = count(after.iter().flatten());
    assert!(all[..5].iter().all(|node| (48..=54).contains(&loads[node.node_id.as_str()])), "{loads:?}");
}

#[test]
fn with_fewer_nodes_than_copies_each_holds_everything() {
    let all = nodes(3, 2);
    let map = fresh(&all, 64, 3);
    assert!(map.iter().all(|holders| holders.len() == 2));
    assert_balanced(&map, &all, 2);
}

#[test]
fn fewer_copies_are_the_first_of_those_that_were() {
    let all = nodes(4, 5);
    let before = fresh(&all, 256, 3);
    let after = desired(&all, VNODES, &before, 2);
    assert!(after.iter().zip(&before).filter(|(a, b)| a.iter().all(|id| b[..2].contains(id))).count() >= 230);
    assert_balanced(&after, &all, 2);
}

#[test]
fn a_partition_from_which_a_node_is_barred_goes_to_another_and_the_rest_stays() {
    let mut all = nodes(1, 4);
    let before = fresh(&all, 256, 2);
    let held: BTreeSet<usize> = (0..256).filter(|p| before[*p][1] == all[0].node_id).take(5).collect();
    all[0].barred = held.clone();
    let after = desired(&all, VNODES, &before, 2);
    for (partition, holders) in after.iter().enumerate() {
        assert_eq!(holders.len(), 2);
        assert!(!held.contains(&partition) || !holders.contains(&all[0].node_id));
    }
    assert!((5..=10).contains(&moved(&before, &after)), "{} moved", moved(&before, &after));
    assert_eq!(desired(&all, VNODES, &after, 2), after);
    let two = [Candidate { barred: (0..4).collect(), ..node("a") }, node("b")];
    assert_eq!(fresh(&two, 4, 2), vec![vec!["b".to_owned()]; 4]);
}

#[test]
fn a_node_that_may_not_lead_keeps_its_copies_and_the_others_share_its_primaries() {
    let mut all = nodes(1, 4);
    let before = fresh(&all, 256, 2);
    all[0].leads = false;
    let after = desired(&all, VNODES, &before, 2);
    assert_eq!(moved(&before, &after), 0);
    let primaries = count(after.iter().filter_map(|holders| holders.first()));
    assert_eq!(primaries.get(all[0].node_id.as_str()), None);
    assert!(primaries.values().all(|count| (78..=92).contains(count)), "{primaries:?}");
    // Once it may lead again it gets its share back.
    all[0].leads = true;
    assert_balanced(&desired(&all, VNODES, &after, 2), &all, 2);
}

#[test]
fn where_no_holder_may_lead_the_primaries_stay() {
    let mut all = nodes(1, 4);
    let before = fresh(&all, 256, 2);
    all.iter_mut().for_each(|node| node.leads = false);
    assert_eq!(desired(&all, VNODES, &before, 2), before);
    let alone = fresh(&all[..1], 4, 2);
    assert_eq!(alone, vec![vec![all[0].node_id.clone()]; 4]);
}

#[test]
fn without_nodes_there_is_no_proposal() {
    assert_eq!(fresh(&[], 4, 2), vec![Vec::<String>::new(); 4]);
}

fn any_nodes() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec(
        (0.1f64..10.0, proptest::option::of(0usize..4), proptest::bool::weighted(0.8), proptest::bool::weighted(0.8)),
        1..30,
    )
    .prop_map(|nodes| {
        let candidate = |(n, (weight, zone, accepts, leads)): (usize, (f64, Option<usize>, bool, bool))| Candidate {
            node_id: format!("node-{n}"),
            weight,
            zone: zone.map(|zone| zone.to_string()),
            accepts,
            leads,
            barred: BTreeSet::new(),
        };
        nodes.into_iter().enumerate().map(candidate).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_the_nodes_does_not_matter_and_the_proposal_is_its_own_fixed_point(
        mut all in any_nodes(), partitions in 1usize..300, factor in 1usize..5, rotate in 0usize..40, other in any_nodes(),
    ) {
        let before = fresh(&other, partitions, factor);
        let map = desired(&all, VNODES, &before, factor);
        prop_assert_eq!(&desired(&all, VNODES, &map, factor), &map);
        let rotate = rotate % all.len();
        all.rotate_left(rotate);
        prop_assert_eq!(&desired(&all, VNODES, &before, factor), &map);
        for holders in &map {
            prop_assert_eq!(holders.iter().collect::<HashSet<_>>().len(), holders.len());
        }
    }

    #[test]
    fn nodes_that_all_accept_hold_every_copy_in_zones_as_far_apart_as_can_be(
        all in any_nodes(), partitions in 1usize..200, factor in 1usize..5, other in any_nodes(),
    ) {
        let all: Vec<_> = all.into_iter().map(|node| {
            let zone = node.zone.or_else(|| Some(node.node_id.clone()));
            Candidate { accepts: true, zone, ..node }
        }).collect();
        let least = least_crowd(&all, factor);
        for before in [vec![Vec::new(); partitions], fresh(&other, partitions, factor)] {
            for holders in desired(&all, VNODES, &before, factor) {
                prop_assert_eq!(holders.len(), factor.min(all.len()));
                prop_assert!(crowd(&all, &holders) <= least, "{:?}", holders);
            }
        }
    }

    #[test]
    fn whoever_comes_and_goes_the_balance_holds(
        seed in any::<u32>(), factor in 1usize..4, changes in proptest::collection::vec(any::<Option<prop::sample::Index>>(), 1..12),
    ) {
        let mut all = nodes(seed, 4);
        let mut map = fresh(&all, 256, factor);
        for (n, change) in changes.into_iter().enumerate() {
            match change {
                Some(leaves) if all.len() > 3 => { all.remove(leaves.index(all.len())); }
                _ => all.push(node(&format!("later-{n}"))),
            }
            map = desired(&all, VNODES, &map, factor);
            assert_balanced(&map, &all, factor);
        }
    }
}
