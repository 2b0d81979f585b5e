//! Situations that are explored completely.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    model::{Bounds, Situation},
    state::Late,
};

const PUT: bool = true;
const DELETE: bool = false;

const NEVER: Late = Late { segments: false, checkpoints: false, removals: false };
const SEGMENTS: Late = Late { segments: true, ..NEVER };
const CHECKPOINTS: Late = Late { checkpoints: true, ..NEVER };
const NONE: Bounds = Bounds { segments: 0, moves: 0, checkpoints: 0, failovers: 0, failures: 0, losses: 0 };

/// Nothing is late, nothing fails.
pub(crate) fn calm() -> Situation {
    Situation {
        keys: 2,
        operations: vec![(0, PUT), (1, PUT), (0, DELETE)],
        uncommitted: false,
        late: NEVER,
        bounds: Bounds { segments: 3, moves: 1, checkpoints: 2, losses: 1, ..NONE },
        bug: None,
    }
}

/// A key is written and deleted, and segments are late.
pub(crate) fn late_segments() -> Situation {
    Situation {
        keys: 1,
        operations: vec![(0, PUT), (0, DELETE)],
        late: SEGMENTS,
        bounds: Bounds { segments: 3, checkpoints: 1, failovers: 1, failures: 1, ..NONE },
        ..calm()
    }
}

/// The lead goes away and comes back while segments are under way.
pub(crate) fn there_and_back() -> Situation {
    Situation {
        operations: vec![(0, PUT)],
        bounds: Bounds { segments: 3, moves: 2, checkpoints: 2, failovers: 2, ..NONE },
        ..late_segments()
    }
}

/// Checkpoints are late.
pub(crate) fn late_checkpoints() -> Situation {
    Situation {
        operations: vec![(0, PUT)],
        late: CHECKPOINTS,
        bounds: Bounds { segments: 2, moves: 1, checkpoints: 3, failovers: 1, failures: 1, ..NONE },
        ..late_segments()
    }
}

/// All disks are lost while segments are under way.
pub(crate) fn loss() -> Situation {
    Situation {
        bounds: Bounds { segments: 2, checkpoints: 2, failovers: 1, failures: 1, losses: 1, ..NONE },
        ..late_segments()
    }
}

/// All disks are lost, also in the middle of the restore.
pub(crate) fn loss_after_loss() -> Situation {
    Situation {
        operations: vec![(0, PUT), (0, PUT)],
        bounds: Bounds { segments: 2, checkpoints: 3, losses: 2, ..NONE },
        ..late_segments()
    }
}

/// Writes that nobody but the primary has.
pub(crate) fn uncommitted() -> Situation {
    Situation {
        operations: vec![(0, PUT), (0, PUT)],
        uncommitted: true,
        late: NEVER,
        bounds: Bounds { segments: 2, checkpoints: 2, failovers: 1, losses: 1, ..NONE },
        ..late_segments()
    }
}

/// Removals are carried out late.
pub(crate) fn late_removals() -> Situation {
    Situation {
        late: Late { removals: true, ..NEVER },
        bounds: Bounds { segments: 2, moves: 1, checkpoints: 2, failovers: 1, losses: 1, ..NONE },
        ..late_segments()
    }
}

fn explore(name: &str, situation: Situation) {
    let start = Instant::now();
    let checker = situation.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let states = checker.unique_state_count();
    eprintln!("{name}: {states} states, {:.1} s", start.elapsed().as_secs_f64());
    report(&checker, name);
    checker.assert_properties();
}

/// Tells the ways to what must not happen. Returns how many there are.
pub(crate) fn report(checker: &impl Checker<Situation>, name: &str) -> usize {
    let failures = checker
        .discoveries()
        .into_iter()
        .filter(|(property, _)| checker.model().property(property).expectation.discovery_is_failure());
    failures
        .map(|(property, path)| {
            let actions = path.into_actions();
            eprintln!("{name}: not always: {property}, after {} steps", actions.len());
            actions.iter().for_each(|action| eprintln!("  {action:?}"));
        })
        .count()
}

#[test]
fn keys_share_segments() {
    explore("calm", calm());
}

#[test]
fn segments_may_be_late() {
    explore("late segments", late_segments());
}

#[test]
fn answers_may_come_after_others_have_led() {
    explore("there and back", there_and_back());
}

#[test]
fn checkpoints_may_be_late() {
    explore("late checkpoints", late_checkpoints());
}

#[test]
fn everything_uploaded_survives_the_loss_of_all_disks() {
    explore("loss", loss());
}

#[test]
fn a_loss_may_follow_a_loss() {
    explore("loss after loss", loss_after_loss());
}

#[test]
fn what_is_not_committed_hides_nothing() {
    explore("uncommitted", uncommitted());
}

#[test]
fn removals_may_be_late() {
    explore("late removals", late_removals());
}
