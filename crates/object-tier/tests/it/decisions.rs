use std::time::Duration;

use cairn_api_spec::Version;
use cairn_object_tier::{
    CheckpointName,
    rules::{
        checkpoint::{self, Since, floor, may_publish, watermark},
        collect::{
            Share, grace_is_over, is_versioned_released, is_worth_moving, may_be_basis, moving_budget, parts,
            tombstone_may_go,
        },
        restore::{ends_with_checkpoint, newest},
        upload::{Lead, Teller, Waiting, believes, counts, linger},
    },
    segment::CUT_BYTES,
};
use proptest::prelude::*;

use crate::records::origin;

const LINGER: Duration = Duration::from_secs(10);

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn a_segment_is_cut_when_it_is_full_or_has_gathered_long_enough() {
    let waiting = |bytes, oldest, awaited| Waiting { bytes, oldest: Some(oldest), awaited };
    assert_eq!(linger(&Waiting::default(), LINGER), None);
    assert_eq!(linger(&waiting(1, ms(0), None), LINGER), Some(LINGER));
    assert_eq!(linger(&waiting(1, ms(9_900), None), LINGER), Some(ms(100)));
    assert_eq!(linger(&waiting(1, ms(11_000), None), LINGER), Some(ms(0)));
    assert_eq!(linger(&waiting(CUT_BYTES, ms(0), None), LINGER), Some(ms(0)));
}

#[test]
fn whoever_waits_waits_a_tenth_of_a_second_for_others() {
    let waiting = |oldest, awaited| Waiting { bytes: 1, oldest: Some(oldest), awaited: Some(awaited) };
    assert_eq!(linger(&waiting(ms(30), ms(30)), LINGER), Some(ms(70)));
    assert_eq!(linger(&waiting(ms(5_000), ms(200)), LINGER), Some(ms(0)));
    assert_eq!(linger(&waiting(ms(30), ms(30)), ms(50)), Some(ms(20)));
}

#[test]
fn uploads_count_only_in_the_epoch_in_which_they_were_gathered() {
    let lead = |epoch, leased| Lead { epoch, leased };
    assert!(counts(lead(3, true), Some(lead(3, true))));
    assert!(!counts(lead(3, true), Some(lead(3, false))));
    assert!(!counts(lead(3, true), Some(lead(5, true))));
    assert!(!counts(lead(3, true), None));
}

#[test]
fn a_replica_believes_the_process_that_is_the_primary() {
    let primary = Teller { node: "a", session: (2, 5), epoch: 3 };
    assert!(believes(&primary, &primary));
    assert!(!believes(&Teller { session: (1, 5), ..primary }, &primary));
    assert!(!believes(&Teller { session: (2, 4), ..primary }, &primary));
    assert!(!believes(&Teller { epoch: 2, ..primary }, &primary));
    assert!(!believes(&Teller { node: "b", ..primary }, &primary));
}

#[test]
fn a_checkpoint_is_due_after_a_quarter_has_changed_or_a_day() {
    let since = |listed, changed, hours: u64| Since { listed, changed, age: Duration::from_secs(3600 * hours) };
    assert!(!checkpoint::is_due(&since(None, 0, 100)));
    assert!(checkpoint::is_due(&since(None, 1, 0)));
    assert!(!checkpoint::is_due(&since(Some(100), 24, 23)));
    assert!(checkpoint::is_due(&since(Some(100), 25, 0)));
    assert!(checkpoint::is_due(&since(Some(100), 1, 24)));
    assert!(!checkpoint::is_due(&since(Some(100), 0, 48)));
    assert!(checkpoint::is_due(&since(Some(0), 1, 0)));
}

proptest! {
    #[test]
    fn a_watermark_is_above_all_former_epochs_and_below_all_that_waits(
        epoch in 1_u64..1000, committed: u32, waiting: Option<u32>
    ) {
        let of = |sequence: u32| Version(floor(epoch).0 + u64::from(sequence));
        let waiting = waiting.map(of);
        match watermark(epoch, of(committed), waiting) {
            Some(watermark) => {
                prop_assert!(watermark >= floor(epoch) && watermark <= of(committed));
                prop_assert!(waiting.is_none_or(|waiting| watermark < waiting));
            }
            None => prop_assert_eq!(waiting, Some(floor(epoch))),
        }
    }

    #[test]
    fn nothing_is_written_more_than_twice(writes in proptest::collection::vec(0_u64..1000, 0..50)) {
        let (mut written, mut moved) = (0, 0);
        for bytes in writes {
            written += bytes;
            moved += moving_budget(written, moved);
            prop_assert!(written + moved <= 2 * written);
        }
    }
}

#[test]
fn no_checkpoint_is_made_while_something_of_a_former_epoch_waits() {
    assert_eq!(watermark(4, Version(floor(4).0 + 5), Some(Version(floor(3).0 + 7))), None);
}

#[test]
fn what_is_not_committed_is_waited_for() {
    assert!(may_publish(Version(5), Version(5)));
    assert!(!may_publish(Version(6), Version(5)));
}

#[test]
fn the_higher_watermark_counts_however_the_names_sort() {
    let checkpoint = |watermark, seq| {
        let (watermark, origin) = (Version(watermark), origin(seq));
        CheckpointName { partition: 1, watermark, epoch: 1, origin }
    };
    let all = [checkpoint(9, 30), checkpoint(10, 9), checkpoint(10, 10), checkpoint(2, 40)];
    assert_eq!(newest(all), Some(checkpoint(10, 10)));
    assert_eq!(newest([]), None);
}

#[test]
fn deletions_may_go_when_the_bucket_needs_to_hear_of_them_no_more() {
    assert!(tombstone_may_go(false, Version(9), Version::NONE));
    assert!(!tombstone_may_go(true, Version(9), Version(8)));
    assert!(tombstone_may_go(true, Version(9), Version(9)));
}

#[test]
fn what_is_mostly_dead_is_moved_and_what_is_useless_goes_after_its_grace() {
    assert!(is_worth_moving(Share { live: 49, total: 100 }));
    assert!(!is_worth_moving(Share { live: 50, total: 100 }));
    assert!(!is_worth_moving(Share { live: 0, total: 0 }));
    assert!(!grace_is_over(ms(3599), ms(3600)));
    assert!(grace_is_over(ms(3600), ms(3600)));
    assert!(is_versioned_released(false, Version(9), Version(9)));
    assert!(!is_versioned_released(true, Version(9), Version(9)));
    assert!(!is_versioned_released(false, Version(9), Version(8)));
}

#[test]
fn values_that_are_near_to_each_other_are_fetched_together() {
    let far = 1 << 20;
    assert_eq!(parts([20..30, far..far + 5, 0..10]), [0..30, far..far + 5]);
    assert_eq!(parts([0..50, 10..20]).as_slice(), std::slice::from_ref(&(0..50)));
    assert!(parts([]).is_empty());
}

#[test]
fn only_the_first_primary_that_finds_nothing_needs_no_checkpoint() {
    assert!(!ends_with_checkpoint(true, false));
    assert!(ends_with_checkpoint(true, true));
    assert!(ends_with_checkpoint(false, false));
    assert!(ends_with_checkpoint(false, true));
}

#[test]
fn nothing_is_released_by_a_checkpoint_that_does_not_count() {
    let checkpoint =
        |watermark, epoch| CheckpointName { partition: 1, watermark: Version(watermark), epoch, origin: origin(1) };
    assert!(may_be_basis(&checkpoint(5, 2), []));
    assert!(may_be_basis(&checkpoint(5, 2), [&checkpoint(5, 1), &checkpoint(4, 9), &checkpoint(5, 2)]));
    assert!(!may_be_basis(&checkpoint(5, 2), [&checkpoint(5, 1), &checkpoint(5, 9)]));
}
