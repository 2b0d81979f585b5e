//! Which copies come forward, and which are given up.

use std::time::Duration;

use cairn_api_spec::cluster::Transfer;
use cairn_placement::{Copies, Expected, Headway, Seen};

const EXPECTED: Expected =
    Expected { stuck_after: Duration::from_secs(60), bytes_per_second: 0, page_bytes: 1_000_000 };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn copied(bytes: u64) -> Option<Transfer> {
    Some(Transfer { partition: 3, bytes, total_bytes: 9_000, complete: false })
}

fn complete() -> Option<Transfer> {
    copied(9_000).map(|transfer| Transfer { complete: true, ..transfer })
}

fn seen(transfer: Option<Transfer>) -> Seen<'static> {
    Seen { partition: 3, node: "b", session: 1, primary: "a", transfer, can_move: true }
}

fn look(copies: &mut Copies, seen: Seen<'_>, seconds: u64) -> Headway {
    copies.observe(&[seen], EXPECTED, at(seconds));
    copies.headway(3, "b", at(seconds))
}

#[test]
fn a_copy_that_never_reports_waits_after_a_while_and_is_stuck_in_the_end() {
    let mut copies = Copies::default();
    for (seconds, headway) in [
        (100, Headway::Moving),
        (114, Headway::Moving),
        (115, Headway::Waiting),
        (159, Headway::Waiting),
        (160, Headway::Stuck),
    ] {
        assert_eq!(look(&mut copies, seen(None), seconds), headway, "after {seconds} s");
    }
}

#[test]
fn only_bytes_that_grow_are_progress() {
    let mut copies = Copies::default();
    for seconds in 0..500 {
        assert_eq!(look(&mut copies, seen(copied(seconds / 10)), seconds), Headway::Moving);
    }
    assert_eq!(look(&mut copies, seen(copied(49)), 520), Headway::Waiting);
    // It has failed and begins again: that alone is none.
    for (seconds, bytes) in [(530, 0), (540, 20), (549, 49)] {
        assert_eq!(look(&mut copies, seen(copied(bytes)), seconds), Headway::Waiting);
    }
    assert_eq!(look(&mut copies, seen(None), 550), Headway::Stuck);
    assert_eq!(look(&mut copies, seen(copied(50)), 551), Headway::Moving);
}

#[test]
fn a_complete_copy_holds_back_nobody_and_is_waited_for_ten_times_as_long() {
    let mut copies = Copies::default();
    assert_eq!(look(&mut copies, seen(copied(8_999)), 0), Headway::Moving);
    assert_eq!(look(&mut copies, seen(complete()), 50), Headway::Waiting);
    // What it said once holds, whether it says it again or not.
    assert_eq!(look(&mut copies, seen(None), 649), Headway::Waiting);
    assert_eq!(look(&mut copies, seen(complete()), 650), Headway::Stuck);
}

#[test]
fn nothing_is_expected_while_one_of_the_two_nodes_is_away() {
    let mut copies = Copies::default();
    let away = Seen { can_move: false, ..seen(copied(7)) };
    for seconds in 0..1_000 {
        assert_eq!(look(&mut copies, away, seconds), Headway::Moving);
    }
    assert_eq!(look(&mut copies, seen(copied(7)), 1_058), Headway::Waiting);
    assert_eq!(look(&mut copies, seen(copied(7)), 1_059), Headway::Stuck);
}

#[test]
fn a_copy_from_another_primary_or_by_another_process_begins_anew() {
    for other in [Seen { primary: "c", ..seen(copied(5)) }, Seen { session: 2, ..seen(copied(5)) }] {
        let mut copies = Copies::default();
        look(&mut copies, seen(copied(5)), 0);
        assert_eq!(look(&mut copies, seen(copied(5)), 60), Headway::Stuck);
        assert_eq!(look(&mut copies, other, 60), Headway::Moving);
    }
    let mut copies = Copies::default();
    look(&mut copies, seen(None), 0);
    copies.observe(&[], EXPECTED, at(30));
    assert_eq!(look(&mut copies, seen(None), 60), Headway::Moving);
}

/// Thirty copies at one node share 100 kB/s, and each tells of a page only when it is there: every 300 s.
#[test]
fn a_small_limit_makes_no_honest_copy_look_stuck() {
    let slow = Expected { bytes_per_second: 100_000, ..EXPECTED };
    let pages = |partition: u64, seconds: u64| (seconds + partition * 10) / 300;
    let still = seen(None);
    let mut copies = Copies::default();
    for seconds in (0..3_600).step_by(5) {
        let seen = |partition: u32| Seen {
            partition,
            transfer: copied(pages(u64::from(partition), seconds) * 1_000_000),
            ..seen(None)
        };
        // One more stands still from the beginning.
        let all: Vec<Seen<'_>> = (0..30).map(seen).chain([Seen { partition: 30, ..still }]).collect();
        copies.observe(&all, slow, at(seconds));
        assert!((0..30).all(|partition| copies.headway(partition, "b", at(seconds)) == Headway::Moving), "{seconds}");
    }
    assert_eq!(copies.headway(30, "b", at(3_600)), Headway::Stuck);
}

#[test]
fn a_limit_that_is_raised_does_not_shorten_the_pause_that_it_had_imposed() {
    let slow = Expected { bytes_per_second: 10_000, ..EXPECTED };
    let mut copies = Copies::default();
    copies.observe(&[seen(copied(5))], slow, at(0));
    for (seconds, headway) in [(214, Headway::Moving), (259, Headway::Waiting), (260, Headway::Stuck)] {
        assert_eq!(look(&mut copies, seen(copied(5)), seconds), headway, "after {seconds} s");
    }
    // From the next page on the new one counts.
    look(&mut copies, seen(copied(6)), 270);
    assert_eq!(look(&mut copies, seen(copied(6)), 330), Headway::Stuck);
}
