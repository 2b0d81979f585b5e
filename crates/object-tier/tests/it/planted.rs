//! Bugs. Each must be found, before it means something that none is.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    exhaustive::{self, report},
    model::Situation,
};

/// A rule that is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Bug {
    /// A restore believes what is below the watermark and not listed.
    P2Dropped,
    /// A segment goes as soon as no row of the primary refers to it.
    P3Dropped,
    /// A segment goes that has something above the watermark.
    WatermarkIgnored,
    /// A segment goes to which nobody refers, since nobody has rows.
    CollectedWhileRestoring,
    /// The row of a deletion goes before the bucket has heard of it.
    TombstoneEarly,
    /// Uploads count whoever leads when the answer comes.
    NoFence,
    /// What moves to another segment is taken to be there before the bucket has said so.
    MovedEarly,
    /// What is sent again is sent under the same name.
    NameUsedTwice,
    /// The checkpoint that counts is the last by name.
    NameOrderTrusted,
    /// A checkpoint is taken to speak of segments that were still under way.
    UnderWayCovered,
    /// A new primary trusts its own places.
    NotReconciled,
    /// A restore ends without a checkpoint.
    RestoreUnsettled,
    /// A restore believes a listing that began before its node took the lead.
    ListedBeforeLeading,
    /// A restore that finds nothing ends without a checkpoint, though others have led before.
    NothingFoundUnsettled,
    /// A checkpoint is published though it saw a write that is not committed.
    UncommittedHides,
    /// A replica believes a former primary.
    StaleTellBelieved,
}

fn find(bug: Bug, situation: Situation) {
    let start = Instant::now();
    let situation = Situation { bug: Some(bug), ..situation };
    let checker = situation.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = report(&checker, &format!("{bug:?}"));
    let states = checker.unique_state_count();
    eprintln!("{bug:?}: {states} states, {:.1} s", start.elapsed().as_secs_f64());
    assert!(found > 0, "{bug:?} is not found");
}

#[test]
fn believing_what_is_not_listed_is_found() {
    find(Bug::P2Dropped, exhaustive::calm());
}

#[test]
fn removing_what_a_checkpoint_refers_to_is_found() {
    find(Bug::P3Dropped, exhaustive::calm());
}

#[test]
fn removing_what_is_above_the_watermark_is_found() {
    find(Bug::WatermarkIgnored, exhaustive::calm());
}

#[test]
fn collecting_during_a_restore_is_found() {
    find(Bug::CollectedWhileRestoring, exhaustive::calm());
}

#[test]
fn forgetting_a_deletion_early_is_found() {
    find(Bug::TombstoneEarly, exhaustive::calm());
}

#[test]
fn counting_uploads_without_the_fence_is_found() {
    find(Bug::NoFence, exhaustive::there_and_back());
}

#[test]
fn counting_what_moves_before_it_is_there_is_found() {
    find(Bug::MovedEarly, exhaustive::there_and_back());
}

#[test]
fn using_a_name_twice_is_found() {
    find(Bug::NameUsedTwice, exhaustive::late_segments());
}

#[test]
fn trusting_the_order_of_names_is_found() {
    find(Bug::NameOrderTrusted, exhaustive::late_checkpoints());
}

#[test]
fn covering_what_is_under_way_is_found() {
    find(Bug::UnderWayCovered, exhaustive::there_and_back());
}

#[test]
fn trusting_places_after_a_takeover_is_found() {
    find(Bug::NotReconciled, exhaustive::there_and_back());
}

#[test]
fn serving_before_a_restore_is_settled_is_found() {
    find(Bug::RestoreUnsettled, exhaustive::loss_after_loss());
}

#[test]
fn believing_an_old_listing_is_found() {
    find(Bug::ListedBeforeLeading, exhaustive::loss());
}

#[test]
fn serving_before_a_restore_of_nothing_is_settled_is_found() {
    find(Bug::NothingFoundUnsettled, exhaustive::loss_after_loss());
}

#[test]
fn publishing_what_is_not_committed_is_found() {
    find(Bug::UncommittedHides, exhaustive::uncommitted());
}

#[test]
fn believing_a_former_primary_is_found() {
    find(Bug::StaleTellBelieved, exhaustive::there_and_back());
}
