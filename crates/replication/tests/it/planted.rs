//! Bugs that a node or a controller could have. Each must be found, before it means something that none is.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    clusters,
    exhaustive::report,
    model::{Bounds, Cluster},
    store::Step,
};

/// A bug planted around the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Bug {
    ReadWithoutLease,
    ServesBeforeSync,
    LearnerNotAwaited,
    RefusedWritesStored,
    AcknowledgedBeforeTheDisk,
    SessionKept,
    PromisesForgotten,
    EarlySnapshot,
    CopiesNotNumbered,
    BeginsAgainAtWill,
    FormerRowsKept,
    WipedSessionUsedAgain,
    FormerSessionsForgotten,
    StaleCopyResumed,
    LossNotTold,
    RefusedWriteForgotten,
}

fn find(name: &str, cluster: Cluster) {
    let start = Instant::now();
    let failures = HasDiscoveries::AnyFailures;
    let checker = cluster.checker().finish_when(failures).target_state_count(20_000_000).spawn_bfs().join();
    let steps = report(&checker, name);
    let states = checker.unique_state_count();
    eprintln!("{name}: {steps:?}, {states} states, {:.1} s", start.elapsed().as_secs_f64());
    assert!(!steps.is_empty(), "{name} is not found");
}

fn with(bug: Bug, mut cluster: Cluster) -> Cluster {
    cluster.rules.bug = Some(bug);
    cluster
}

#[test]
fn reads_without_a_lease_are_found() {
    find("reads without a lease", with(Bug::ReadWithoutLease, clusters::failover()));
}

#[test]
fn a_majority_that_anyone_may_leave_is_found() {
    let mut model = clusters::quorum();
    model.allows = |step| matches!(step, Step::Promote { .. });
    find("acknowledged by a majority, anyone promoted", model);
}

#[test]
fn serving_before_synchronizing_is_found() {
    find("serves before it has synchronized", with(Bug::ServesBeforeSync, clusters::failover()));
}

#[test]
fn a_learner_that_is_not_awaited_is_found() {
    find("a learner is not awaited", with(Bug::LearnerNotAwaited, clusters::join()));
}

#[test]
fn a_promise_shorter_than_the_lease_is_found() {
    let mut model = clusters::failover_of_two();
    model.rules.settings.promise = 0;
    find("a promise shorter than the lease", model);
}

#[test]
fn refused_writes_that_are_stored_are_found() {
    find("refused writes are stored", with(Bug::RefusedWritesStored, clusters::failover_of_two()));
}

#[test]
fn acknowledging_before_the_disk_has_it_is_found() {
    find("acknowledged before the disk has it", with(Bug::AcknowledgedBeforeTheDisk, clusters::restart()));
}

#[test]
fn a_restart_in_the_same_session_is_found() {
    let mut model = clusters::failover();
    model.bounds.restarts = 1;
    find("a restart in the same session", with(Bug::SessionKept, model));
}

#[test]
fn promises_forgotten_in_a_restart_are_found() {
    find("promises are forgotten in a restart", with(Bug::PromisesForgotten, clusters::restart()));
}

#[test]
fn a_snapshot_before_queued_writes_is_found() {
    find("a snapshot before queued writes", with(Bug::EarlySnapshot, clusters::join()));
}

#[test]
fn a_late_word_of_an_earlier_copy_is_found() {
    let mut model = clusters::join();
    model.bounds = Bounds { ticks: 0, epoch: 5, copies: 2, duplicates: 0, ..model.bounds };
    model.allows = |step| matches!(step, Step::AddLearner(_) | Step::DropLearner(_));
    find("a late word of an earlier copy", with(Bug::CopiesNotNumbered, model));
}

#[test]
fn a_learner_that_begins_again_at_will_is_found() {
    let mut model = clusters::join();
    model.bounds = Bounds { ticks: 1, epoch: 4, copies: 2, duplicates: 0, ..model.bounds };
    model.rules.patience = 1;
    find("a learner begins again at will", with(Bug::BeginsAgainAtWill, model));
}

#[test]
fn former_rows_of_a_learner_are_found() {
    find("a learner keeps its former rows", with(Bug::FormerRowsKept, clusters::rejoin()));
}

#[test]
fn a_wiped_disk_under_a_former_session_is_found() {
    find("a wiped disk under a former session", with(Bug::WipedSessionUsedAgain, clusters::wipe()));
}

#[test]
fn a_stale_copy_that_is_resumed_is_found() {
    let mut model = clusters::restart();
    model.bounds.epoch += 1;
    model.allows = |step| matches!(step, Step::Remove(_) | Step::Resume(_));
    find("a stale copy is resumed", with(Bug::StaleCopyResumed, model));
}

#[test]
fn rows_of_a_restarted_copy_that_are_dropped_are_found() {
    find("a restarted copy drops its rows", with(Bug::FormerSessionsForgotten, clusters::restart()));
}

#[test]
fn a_loss_that_is_not_told_is_found() {
    find("a loss is not told", with(Bug::LossNotTold, clusters::memory_and_disk_failure()));
}

#[test]
fn a_refused_write_that_is_forgotten_is_found() {
    let cluster = clusters::memory_and_disk_failure();
    find("a refused write is forgotten", with(Bug::RefusedWriteForgotten, cluster));
}

#[test]
fn a_copy_of_a_quorum_that_leaves_with_the_only_write_is_found() {
    let mut model = clusters::quorum();
    model.bounds.epoch += 2;
    model.allows = |step| matches!(step, Step::Promote { to: 1, alone: false } | Step::Remove(2));
    find("a copy of a quorum leaves while another one lacks a write", model);
}
