//! Copies and disks that answer nothing, while everything else of them works.

use cairn_replication::{Change, Effect, NotServing, Role, Settings};

use crate::bench::{Bench, process, sent_to};

fn quorum() -> Settings {
    Settings { write_quorum: Some(2), ..Settings::default() }
}

#[test]
fn a_copy_of_a_quorum_that_never_answers_is_given_up() {
    let mut bench = Bench::serving(3, quorum());
    let version = bench.propose(false).unwrap();
    bench.stored(version);
    bench.acknowledged(1, version);
    assert_eq!(bench.replica.committed(), version);
    assert_eq!(bench.asks_within(5_000, &[1, 2]), [], "a quorum is there for copies that are late");
    assert_eq!(bench.asks_within(10_000, &[1, 2]), [Change::Remove(2)]);
}

#[test]
fn a_copy_of_a_quorum_stays_while_the_others_lack_a_write_that_it_has() {
    let mut bench = Bench::serving(3, quorum());
    let first = bench.propose(false).unwrap();
    bench.stored(first);
    bench.acknowledged(1, first);
    assert_eq!(bench.asks_within(9_500, &[1, 2]), []);
    let second = bench.propose(false).unwrap();
    bench.stored(second);
    bench.acknowledged(2, second);
    assert_eq!(bench.replica.committed(), second);
    // Of those who would be left, one alone could take over without this write.
    assert_eq!(bench.asks_within(3_000, &[1, 2]), []);
    bench.acknowledged(1, second);
    assert_eq!(bench.asks_within(500, &[1, 2]), [Change::Remove(2)]);
}

#[test]
fn a_failed_copy_of_a_quorum_stays_while_the_others_lack_a_write_that_it_has() {
    let mut bench = Bench::serving(3, quorum());
    let version = bench.propose(false).unwrap();
    bench.stored(version);
    bench.acknowledged(2, version);
    assert_eq!(bench.replica.committed(), version);
    bench.replica.refused(&process(2), true, bench.now, &mut bench.effects);
    assert_eq!(bench.asks_within(5_000, &[1]), []);
    bench.acknowledged(1, version);
    assert_eq!(bench.asks_within(500, &[1]), [Change::Remove(2)]);
}

#[test]
fn a_new_primary_of_a_quorum_brings_what_it_found_to_the_others_before_one_that_is_silent_leaves() {
    let mut bench = Bench::new(3, 1, quorum());
    assert_eq!(bench.append(1, 1, 7, 0), Ok(true));
    bench.enter(2, 0, &[0, 1, 2]);
    bench.take_over(vec![2]);
    assert_eq!(bench.asks_within(2_500, &[2]), [], "copy 2 lacks the write");
    assert_eq!(bench.replica.role(), Role::Syncing);
    let version = bench.replica.last();
    bench.stored(version);
    bench.acknowledged(2, version);
    assert_eq!(bench.replica.role(), Role::Syncing, "copy 1 may have writes that nobody has heard of");
    assert_eq!(bench.asks_within(500, &[2]), [Change::Remove(1)]);
    bench.enter(3, 0, &[0, 2]);
    assert_eq!(bench.replica.role(), Role::Serving);
}

#[test]
fn two_hung_copies_of_a_quorum_are_given_up_one_after_the_other() {
    let mut bench = Bench::serving(3, quorum());
    for peer in [1, 2] {
        let version = bench.propose(false).unwrap();
        bench.stored(version);
        bench.acknowledged(peer, version);
    }
    assert_eq!(bench.asks_within(11_000, &[1, 2]), [Change::Remove(1)]);
    bench.enter(2, 0, &[0, 2]);
    assert_eq!(bench.asks_within(1_000, &[2]), [Change::Remove(2)]);
}

#[test]
fn a_copy_of_a_quorum_that_owes_too_much_is_given_up_before_its_time() {
    let mut bench = Bench::serving(3, Settings { most_unstable: 100, ..quorum() });
    let mut taken = 0;
    while let Ok(version) = bench.propose(false) {
        bench.stored(version);
        bench.acknowledged(1, version);
        taken += 1;
    }
    assert_eq!(taken, 100);
    assert_eq!(bench.propose(false), Err(NotServing::TooManyUnstable), "what is kept is bounded");
    assert_eq!(bench.asks_within(2_000, &[1, 2]), [Change::Remove(2)]);
    bench.enter(2, 0, &[0, 1]);
    assert!(bench.propose(false).is_ok());
}

#[test]
fn what_is_sent_again_is_bounded_and_gets_less_while_nothing_is_answered() {
    let mut bench = Bench::serving(3, quorum());
    for _ in 0..5_000 {
        let version = bench.propose(false).unwrap();
        bench.stored(version);
        bench.acknowledged(1, version);
    }
    bench.effects.clear();
    let sent: Vec<usize> = (0..80).map(|_| sent_to(2, &bench.tick(&[1, 2]))).collect();
    assert!(sent.iter().all(|sent| *sent <= 512), "{sent:?}");
    assert!(sent.iter().sum::<usize>() < 1_100, "{sent:?}");
    assert!(sent.iter().rev().take(10).any(|sent| *sent > 0), "it is still asked: {sent:?}");
}

#[test]
fn a_copy_that_answers_again_gets_what_it_lacks_at_once() {
    let mut bench = Bench::serving(2, Settings::default());
    let versions: Vec<_> = (0..5_000).map(|_| bench.propose(true).unwrap()).collect();
    versions.iter().for_each(|version| bench.stored(*version));
    bench.effects.clear();
    let mut ticks = 0;
    while bench.replica.lag().0 > 0 {
        for effect in bench.tick(&[1]) {
            if let Effect::Append { write, .. } = effect {
                bench.acknowledged(1, write.version);
            }
        }
        ticks += 1;
        assert!(ticks < 14, "it is given up before it has everything");
    }
}

#[test]
fn a_primary_with_a_hung_disk_lets_another_copy_take_over() {
    let mut bench = Bench::serving(2, Settings::default());
    let version = bench.propose(false).unwrap();
    bench.acknowledged(1, version);
    assert_eq!(bench.asks_within(4_000, &[1]), []);
    assert_eq!(bench.asks_within(2_000, &[1]), [Change::StepDown(1)]);
    assert_eq!(bench.replica.role(), Role::Failing);
}

#[test]
fn the_only_copy_goes_on_with_a_hung_disk() {
    let mut bench = Bench::serving(1, Settings::default());
    bench.propose(false).unwrap();
    assert_eq!(bench.asks_within(20_000, &[]), []);
    assert_eq!(bench.replica.role(), Role::Serving, "reads are answered");
}

#[test]
fn a_hung_disk_does_not_hand_over_to_a_copy_that_seems_gone() {
    let mut bench = Bench::serving(2, Settings::default());
    let version = bench.propose(false).unwrap();
    bench.acknowledged(1, version);
    assert_eq!(bench.asks_within(20_000, &[]), [Change::Remove(1)]);
}
