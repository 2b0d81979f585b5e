//! Copies that lose writes which they have acknowledged, and entries that no version can belong to.

use cairn_api_spec::Version;
use cairn_replication::{Change, Collected, Effect, NotServing, Refusal, Role, Settings};

use crate::bench::{Bench, process};

const WRITE: Version = Version((1 << 40) + 1);

/// Node 0 follows node 1, and has lost a write that it had acknowledged.
fn follower() -> Bench {
    let mut bench = Bench::new(2, 1, Settings::default());
    assert_eq!(bench.append(1, 1, WRITE.0, 0), Ok(true));
    bench.replica.lost(WRITE, &mut bench.effects);
    bench
}

#[test]
fn a_copy_that_has_lost_a_write_refuses_everything_until_it_copies_anew() {
    let mut bench = follower();
    assert_eq!(bench.append(1, 1, WRITE.0 + 1, 0), Err(Refusal::Failed));
    let header = bench.header(1, 1, 0);
    assert_eq!(bench.replica.renew(&header, bench.now, &mut bench.effects), Err(Refusal::Failed));
    assert_eq!(bench.replica.collect(&header, bench.now, &mut bench.effects), Err(Refusal::Failed));
    bench.enter(2, 1, &[0, 1]);
    assert_eq!(bench.append(1, 2, WRITE.0 + 1, 0), Err(Refusal::Failed), "another entry heals nothing");
    bench.enter(3, 1, &[1]);
    assert_eq!(bench.replica.lost_write(), None);
    assert_eq!(bench.append(1, 3, WRITE.0 + 1, 0), Err(Refusal::NotHolder));
}

#[test]
fn a_primary_removes_a_copy_that_says_so_at_once() {
    let mut bench = Bench::serving(3, Settings::default());
    bench.replica.refused(&process(2), true, bench.now, &mut bench.effects);
    let removes = |effect: &Effect<u16, ()>| matches!(effect, Effect::Ask { change: Change::Remove(2), .. });
    assert!(bench.effects.iter().any(removes));
}

#[test]
fn a_copy_that_has_lost_a_write_leaves_the_place_to_one_that_has_it() {
    let mut bench = follower();
    bench.enter(2, 0, &[0, 1]);
    bench.take_over(vec![1]);
    assert_eq!(bench.asks_within(5_000, &[1]), [Change::StepDown(1)]);
    assert_eq!(bench.replica.role(), Role::Collecting, "it does not serve");
}

#[test]
fn the_last_copy_says_that_it_goes_on_without_what_it_has_lost() {
    let mut bench = follower();
    bench.enter(2, 0, &[0, 1]);
    bench.replica.lead(bench.now, &mut bench.effects);
    assert_eq!(bench.asks_within(9_000, &[]), [], "the other one may come back");
    assert_eq!(bench.asks_within(2_000, &[]), [Change::Remove(1)]);
    bench.enter(3, 0, &[0]);
    let told = bench.effects.iter().filter(|effect| **effect == Effect::Lost(WRITE)).count();
    assert_eq!((told, bench.replica.lost_write()), (1, None));
}

#[test]
fn a_promise_that_was_given_before_a_loss_is_kept() {
    let mut bench = Bench::new(2, 1, Settings::default());
    let header = bench.header(1, 1, 0);
    assert_eq!(bench.replica.renew(&header, bench.now, &mut bench.effects), Ok(()));
    bench.replica.lost(WRITE, &mut bench.effects);
    bench.enter(2, 0, &[0]);
    bench.take_over(Vec::new());
    bench.asks_within(3_900, &[]);
    assert_eq!(bench.replica.role(), Role::Collecting);
    bench.asks_within(200, &[]);
    assert_eq!(bench.replica.role(), Role::Serving);
}

#[test]
fn a_peer_that_has_lost_a_write_is_not_waited_for_in_a_takeover() {
    let mut bench = Bench::new(2, 1, Settings::default());
    bench.enter(2, 0, &[0, 1]);
    bench.replica.lead(bench.now, &mut bench.effects);
    bench.replica.no_holder(&process(1), bench.now, &mut bench.effects);
    assert_eq!(bench.asks_within(100, &[]), [Change::Remove(1)]);
}

#[test]
fn an_entry_with_an_epoch_that_no_version_can_have_is_not_followed() {
    let mut bench = Bench::serving(1, Settings::default());
    let entry = cairn_replication::Entry { epoch: Version::MAX_EPOCH + 1, ..bench.replica.entry().clone() };
    assert!(!bench.replica.configure(entry, bench.now, &mut bench.effects));
    assert_eq!(bench.effects, [Effect::EpochTooHigh(Version::MAX_EPOCH + 1)]);
    assert_eq!(bench.replica.role(), Role::Serving);
}

#[test]
fn a_message_with_such_an_epoch_fences_nothing() {
    let mut bench = Bench::new(2, 1, Settings::default());
    assert_eq!(bench.append(1, Version::MAX_EPOCH + 1, WRITE.0, 0), Err(Refusal::NotHolder));
    assert_eq!(bench.replica.fence(), 1);
}

#[test]
fn no_write_is_taken_when_there_is_no_further_version() {
    let mut bench = Bench::serving(1, Settings::default());
    bench.replica.observe(Version::MAX);
    assert_eq!(bench.propose(false), Err(NotServing::NoVersionLeft));
    assert_eq!(bench.replica.lag().0, 0, "nothing has happened");
}

#[test]
fn a_takeover_ends_under_the_highest_epoch() {
    let mut bench = Bench::new(2, 1, Settings::default());
    bench.enter(Version::MAX_EPOCH, 0, &[0, 1]);
    bench.replica.lead(bench.now, &mut bench.effects);
    let nothing = Collected { writes: Vec::new(), stable: Version::NONE, last: Version::NONE };
    let (epoch, now) = (Version::MAX_EPOCH, bench.now);
    bench.replica.collected(&process(1), epoch, now, nothing, now, &mut bench.effects);
    assert_eq!(bench.propose(false).ok(), Version::NONE.next(Version::MAX_EPOCH));
}
