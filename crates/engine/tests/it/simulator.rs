//! A seeded simulation of whole clusters of engines: placement, replication, networks, disks, clocks, clients, and
//! everything that goes wrong, in one process and without a clock. `CAIRN_SEED=17` plays one seed again, and tells what
//! happens in it; `CAIRN_SEEDS=100000` plays more of them, and `CAIRN_FIRST_SEED` others; `CAIRN_BUG` looks for one planted
//! bug only.

mod bucket;
mod calls;
mod check;
mod checkpoints;
mod clients;
mod collecting;
mod copy;
mod disk;
mod faults;
mod follow;
mod history;
mod lives;
mod loader;
mod machine;
mod master;
mod memory;
mod merge;
mod network;
mod outcome;
mod random;
mod restored;
mod restoring;
mod roles;
mod storage;
mod tables;
mod uploads;
mod world;

use std::{ops::Range, time::Instant};

use outcome::run;
use random::Random;
use world::Config;

use crate::planted::Bug;

/// Three to five nodes with everything that can go wrong.
fn small(seed: u64) -> Config {
    let mut random = Random::new(!seed);
    let strategies =
        [(2, None), (2, None), (2, None), (3, None), (3, Some(2)), (3, Some(2)), (3, Some(1)), (5, Some(3))];
    let (factor, quorum) = random.pick(&strategies).unwrap();
    Config {
        seed,
        nodes: random.pick(&[3, 4, 5]).unwrap(),
        partitions: random.pick(&[1, 2, 3]).unwrap(),
        keys: random.pick(&[2, 4, 8]).unwrap(),
        factor,
        write_quorum: quorum,
        min_in_sync: random.pick(&[1, 1, 1, 2]).unwrap(),
        clients: 6,
        lost_per_mille: 100,
        eviction_per_mille: random.pick(&[0, 300, 900]).unwrap(),
        flushed_per_mille: random.pick(&[20, 100, 300]).unwrap(),
        upload_linger: random.pick(&[300, 2_000, 6_000]).unwrap(),
        bucket_fails_per_mille: random.pick(&[0, 50, 300]).unwrap(),
        loses_disks: random.chance(400),
        faults_until: 20_000,
        bug: None,
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The first seed that fails, with why, and how many operations and faults there were.
fn first_failure(seeds: Range<u64>, config: impl Fn(u64) -> Config) -> (Option<(u64, String)>, usize, usize) {
    let (mut operations, mut faults) = (0, 0);
    for seed in seeds {
        let (world, result) = run(config(seed), None);
        (operations, faults) = (operations + world.history.len(), faults + world.faults);
        if let Err(error) = result {
            return (Some((seed, error)), operations, faults);
        }
    }
    (None, operations, faults)
}

#[test]
fn small_clusters_keep_every_promise_whatever_happens() {
    if let Some(seed) = number("CAIRN_SEED") {
        let (world, result) = run(small(seed), Some(Vec::new()));
        world.master.story.into_iter().flatten().for_each(|line| eprintln!("{line}"));
        for (number, operation) in world.history.iter().enumerate() {
            eprintln!("{number}: {operation:?}");
        }
        return assert_eq!(result, Ok(()));
    }
    let start = Instant::now();
    let first = number("CAIRN_FIRST_SEED").unwrap_or(0);
    let seeds = first..first + number("CAIRN_SEEDS").unwrap_or(500);
    let (failure, operations, faults) = first_failure(seeds.clone(), small);
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{seeds:?} seeds, {operations} operations, {faults} faults, {seconds:.1} s");
    if let Some((seed, error)) = failure {
        panic!("CAIRN_SEED={seed}: {error}");
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    let traces = |_| -> Vec<u64> { (0..30).map(|seed| run(small(seed), None).0.trace).collect() };
    let [first, second] = [0, 1].map(traces);
    assert_eq!(first, second);
    assert_ne!(first[0], first[1]);
}

#[test]
fn bugs_of_a_driver_are_found() {
    let wanted = std::env::var("CAIRN_BUG").ok();
    let is_wanted = |bug: &Bug| wanted.as_ref().is_none_or(|name| *name == format!("{bug:?}"));
    for bug in Bug::ALL.into_iter().filter(is_wanted) {
        let first = number("CAIRN_FIRST_SEED").unwrap_or(bug.first_seed());
        // Each in clusters in which it can do harm.
        let (factor, write_quorum) = if bug.is_of_quorums() { (3, Some(2)) } else { (2, None) };
        let config = |seed| {
            let config = Config { bug: Some(bug), factor, write_quorum, ..small(seed) };
            let often = Config { upload_linger: 300, bucket_fails_per_mille: 300, loses_disks: true, ..config };
            if bug.is_of_the_bucket() { often } else { config }
        };
        let (failure, ..) = first_failure(first..first + 1_000, config);
        let (seed, error) = failure.unwrap_or_else(|| panic!("{bug:?} is not found"));
        eprintln!("{bug:?}: seed {seed}: {error}");
    }
}
