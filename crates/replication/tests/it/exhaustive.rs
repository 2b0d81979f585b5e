//! Small clusters, each explored completely. `CAIRN_MODEL_DEEPER=1` allows one more change of the entry and one more tick.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{clusters, model::Cluster};

fn explore(name: &str, mut cluster: Cluster) {
    let deeper = std::env::var("CAIRN_MODEL_DEEPER").ok().and_then(|steps| steps.parse().ok()).unwrap_or(0);
    cluster.bounds.epoch += deeper;
    cluster.bounds.ticks += deeper;
    let start = Instant::now();
    let checker = cluster.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let (states, transitions) = (checker.unique_state_count(), checker.state_count());
    eprintln!("{name}: {states} states, {transitions} transitions, {:.1} s", start.elapsed().as_secs_f64());
    report(&checker, name);
    checker.assert_properties();
}

/// Tells the ways to what must not happen. Returns their lengths.
pub(crate) fn report(checker: &impl Checker<Cluster>, name: &str) -> Vec<(&'static str, usize)> {
    let mut failures = Vec::new();
    for (property, path) in checker.discoveries() {
        if checker.model().property(property).expectation.discovery_is_failure() {
            let actions = path.into_actions();
            eprintln!("{name}: not always: {property}, after {} steps", actions.len());
            actions.iter().for_each(|action| eprintln!("  {action:?}"));
            failures.push((property, actions.len()));
        }
    }
    failures
}

#[test]
fn three_copies_survive_a_primary_that_seems_gone() {
    explore("failover", clusters::failover());
}

#[test]
fn two_copies_survive_one_that_seems_gone() {
    explore("failover of two", clusters::failover_of_two());
}

#[test]
fn whoever_takes_over_finds_out_who_is_gone() {
    explore("failover and back", clusters::failover_and_back());
}

#[test]
fn what_is_sent_again_does_no_harm() {
    explore("retries", clusters::retries());
}

#[test]
fn writes_in_memory_survive_a_change_of_the_primary() {
    explore("memory", clusters::memory());
}

#[test]
fn a_majority_survives_as_long_as_one_of_it_is_left() {
    explore("quorum", clusters::quorum());
}

#[test]
fn a_primary_hands_over() {
    explore("handover", clusters::handover());
}

#[test]
fn a_primary_hands_over_and_back() {
    explore("back and forth", clusters::back_and_forth());
}

#[test]
fn a_former_primary_takes_over_again() {
    explore("handover and failover", clusters::handover_and_failover());
}

#[test]
fn a_node_joins_under_writes() {
    explore("join", clusters::join());
}

#[test]
fn a_node_joins_again_and_again() {
    explore("join again", clusters::join_again());
}

#[test]
fn a_third_node_joins_two_that_differ() {
    explore("join of a third", clusters::join_of_a_third());
}

#[test]
fn writes_wait_for_enough_copies() {
    explore("too few copies", clusters::too_few_copies());
}

#[test]
fn a_former_primary_learns() {
    explore("rejoin", clusters::rejoin());
}

#[test]
fn a_process_starts_anew() {
    explore("restart", clusters::restart());
}

#[test]
fn a_disk_is_lost() {
    explore("wipe", clusters::wipe());
}

#[test]
fn a_disk_refuses_a_write() {
    explore("disk failure", clusters::disk_failure());
}

#[test]
fn a_copy_that_has_lost_a_write_says_so() {
    explore("memory and disk failure", clusters::memory_and_disk_failure());
}
