//! Disks that refuse writes.

use cairn_api_spec::Version;
use cairn_replication::{Change, Effect, Role, Settings};

use crate::bench::{Bench, committed, to_store};

/// Node 0 takes over from node 1, which is gone, with a write that may have been answered.
fn taking_over_alone() -> (Bench, Version) {
    let mut bench = Bench::new(2, 1, Settings::default());
    let version = Version::NONE.next(1).unwrap();
    assert_eq!(bench.append(1, 1, version.0, 0), Ok(true));
    bench.enter(2, 0, &[0]);
    bench.take_over(Vec::new());
    assert_eq!(bench.replica.role(), Role::Syncing);
    assert_eq!(to_store(&std::mem::take(&mut bench.effects)), [version]);
    (bench, version)
}

#[test]
fn a_takeover_whose_write_is_refused_stores_it_again_and_then_serves() {
    let (mut bench, version) = taking_over_alone();
    assert!(!bench.not_stored(version), "its client may have been told that it is there");
    assert_eq!(bench.replica.role(), Role::Syncing);
    let mut effects = bench.tick(&[]);
    effects.extend(bench.tick(&[]));
    assert_eq!(to_store(&effects), [version], "once in a while");
    bench.stored(version);
    assert_eq!(committed(&bench.effects), [version]);
    assert_eq!(bench.replica.role(), Role::Serving);
}

#[test]
fn a_takeover_whose_writes_are_refused_for_long_leaves_it_to_another_copy() {
    let mut bench = Bench::new(3, 2, Settings::default());
    let version = Version::NONE.next(1).unwrap();
    assert_eq!(bench.append(2, 1, version.0, 0), Ok(true));
    bench.enter(2, 0, &[0, 1]);
    bench.take_over(vec![1]);
    bench.now += 5_000;
    bench.tick(&[1]);
    assert_eq!(bench.replica.role(), Role::Syncing);
    bench.acknowledged(1, version);
    let mut asked = Vec::new();
    for _ in 0..30 {
        bench.not_stored(version);
        asked.extend(bench.asks_within(100, &[1]));
    }
    assert_eq!(asked.first(), Some(&Change::StepDown(1)));
    assert_eq!(bench.replica.role(), Role::Failing);
}

#[test]
fn a_write_that_was_answered_before_its_disk_refuses_it_is_stored_again() {
    let mut bench = Bench::serving(1, Settings::default());
    let version = bench.propose(true).unwrap();
    assert_eq!(committed(&std::mem::take(&mut bench.effects)), [version]);
    assert!(!bench.not_stored(version), "it stays");
    assert_eq!(bench.replica.role(), Role::Serving);
    assert_eq!(to_store(&bench.tick(&[])), [version]);
    assert_eq!(bench.replica.lag().0, 1, "it waits for the disk");
    bench.stored(version);
    assert_eq!(bench.replica.lag().0, 0);
}

#[test]
fn a_write_that_nobody_was_told_of_is_as_if_it_had_never_been() {
    let mut bench = Bench::serving(1, Settings::default());
    let version = bench.propose(false).unwrap();
    assert!(bench.not_stored(version));
    assert_eq!(to_store(&bench.tick(&[])), []);
}

#[test]
fn a_failing_primary_that_is_left_alone_keeps_what_it_has_answered() {
    let mut bench = Bench::serving(2, Settings::default());
    let answered = bench.propose(true).unwrap();
    bench.acknowledged(1, answered);
    let unknown = bench.propose(false).unwrap();
    bench.not_stored(answered);
    bench.not_stored(unknown);
    assert_eq!(bench.replica.role(), Role::Failing);
    bench.effects.clear();
    bench.enter(2, 0, &[0]);
    assert_eq!(bench.replica.role(), Role::Serving, "there is no other copy");
    let mut effects = std::mem::take(&mut bench.effects);
    effects.extend(bench.tick(&[]));
    assert_eq!(to_store(&effects), [answered]);
    assert!(!effects.contains(&Effect::Abandoned));
}

#[test]
fn a_failing_primary_that_is_left_alone_keeps_what_it_found_in_its_takeover() {
    let mut bench = Bench::new(3, 2, Settings::default());
    let found = Version::NONE.next(1).unwrap();
    assert_eq!(bench.append(2, 1, found.0, 0), Ok(true));
    bench.enter(2, 0, &[0, 1]);
    bench.take_over(vec![1]);
    while bench.replica.role() != Role::Failing {
        bench.not_stored(found);
        bench.asks_within(100, &[1]);
    }
    bench.not_stored(found);
    bench.effects.clear();
    bench.enter(3, 0, &[0]);
    assert_eq!(bench.replica.role(), Role::Syncing, "its client may have been told that it is there");
    let mut effects = std::mem::take(&mut bench.effects);
    (0..10).for_each(|_| effects.extend(bench.tick(&[])));
    assert_eq!((to_store(&effects).first(), committed(&effects)), (Some(&found), Vec::new()));
    bench.stored(found);
    assert_eq!((committed(&bench.effects), bench.replica.role()), (vec![found], Role::Serving));
}

#[test]
fn a_primary_that_goes_on_alone_shows_nothing_of_what_was_abandoned_before_its_disk_has_it() {
    let mut bench = Bench::serving(2, Settings::default());
    let abandoned = bench.propose(true).unwrap();
    let refused = bench.propose(false).unwrap();
    bench.not_stored(refused);
    assert_eq!(bench.replica.role(), Role::Failing);
    bench.effects.clear();
    bench.enter(2, 0, &[0]);
    // A request with the same idempotency key would look for it on the disk.
    assert_eq!((committed(&bench.effects), bench.replica.role()), (Vec::new(), Role::Syncing));
    bench.stored(abandoned);
    assert_eq!((committed(&bench.effects), bench.replica.role()), (vec![abandoned], Role::Serving));
}

#[test]
fn a_failing_primary_of_a_quorum_leaves_only_when_the_others_have_what_was_answered() {
    let mut bench = Bench::serving(3, Settings { write_quorum: Some(2), ..Settings::default() });
    let answered = bench.propose(false).unwrap();
    bench.stored(answered);
    bench.acknowledged(1, answered);
    assert_eq!(bench.replica.committed(), answered);
    let refused = bench.propose(false).unwrap();
    bench.not_stored(refused);
    // Whoever takes over may have to do with the word of one other copy.
    assert_eq!(bench.asks_within(1_000, &[1, 2]), []);
    bench.acknowledged(2, answered);
    assert_eq!(bench.asks_within(300, &[1, 2]), [Change::StepDown(1)]);
}
