//! The steps that a primary asks for, and the last epoch.

use cairn_api_spec::cluster::{ChangePartition, Partition, PartitionChange};
use cairn_placement::{Holder, LAST_EPOCH, Reason, Step, change, is_done};

use crate::support::{alive, as_holder, asks, case, entry, named};

#[test]
fn a_primary_may_ask_for_what_it_finds_out() {
    let current = entry(&["a", "b", "c"], &["d"]);
    for (kind, subject, reason, next) in [
        (PartitionChange::CaughtUp, "d", Reason::CaughtUp, entry(&["a", "b", "c", "d"], &[])),
        (PartitionChange::Remove, "c", Reason::Late, entry(&["a", "b"], &["d"])),
        (PartitionChange::Remove, "d", Reason::Late, entry(&["a", "b", "c"], &[])),
        (PartitionChange::HandOver, "c", Reason::HandedOver, entry(&["c", "a", "b"], &[])),
        (PartitionChange::StepDown, "b", Reason::SteppedDown, entry(&["b", "c"], &[])),
    ] {
        let asked = asks(kind, subject);
        let successor = if reason == Reason::CaughtUp { "b" } else { subject };
        let before = if kind == PartitionChange::Remove { current.clone() } else { named(current.clone(), successor) };
        assert!(!is_done(&before, &asked), "{asked:?}");
        let step = change(&before, &asked, &|_| alive()).unwrap();
        let successor = before.successor.filter(|_| reason == Reason::CaughtUp);
        assert_eq!(step, Step { next: Partition { epoch: 6, successor, ..next }, reason }, "{asked:?}");
        assert!(is_done(&step.next, &asked), "{asked:?}");
        assert_eq!(change(&step.next, &asked, &|_| alive()), None);
    }
}

#[test]
fn whoever_does_not_know_the_present_entry_may_ask_for_nothing() {
    let current = entry(&["a", "b"], &["c"]);
    let right = asks(PartitionChange::CaughtUp, "c");
    for wrong in [
        ChangePartition { epoch: 4, ..right.clone() },
        ChangePartition { epoch: 6, ..right.clone() },
        ChangePartition { session: 2, ..right.clone() },
        ChangePartition { node_id: "b".to_owned(), ..right.clone() },
        asks(PartitionChange::CaughtUp, "b"),
        asks(PartitionChange::CaughtUp, "d"),
        asks(PartitionChange::Remove, "a"),
        asks(PartitionChange::Remove, "d"),
        asks(PartitionChange::HandOver, "a"),
        asks(PartitionChange::HandOver, "c"),
        asks(PartitionChange::StepDown, "c"),
        asks(PartitionChange::StepDown, "a"),
    ] {
        assert_eq!(change(&current, &wrong, &|_| alive()), None, "{wrong:?}");
        assert!(!is_done(&current, &wrong), "{wrong:?}");
    }
}

#[test]
fn a_node_that_is_another_process_by_now_or_away_does_not_become_in_sync_or_primary() {
    let others = [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }, Holder::DataLost, Holder::Removed];
    for holder in others {
        let refused = |current: &Partition, asked: &ChangePartition, who: &str| {
            let standing = |id: &str| if id == who { as_holder(holder) } else { alive() };
            assert_eq!(change(current, asked, &standing), None, "{holder:?} {asked:?}");
        };
        refused(&entry(&["a"], &["b"]), &asks(PartitionChange::CaughtUp, "b"), "b");
        refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::HandOver, "b"), "b");
        refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::StepDown, "b"), "b");
        if !matches!(holder, Holder::Silent | Holder::Gone) {
            refused(&entry(&["a", "b"], &[]), &asks(PartitionChange::Remove, "b"), "a");
        }
    }
}

#[test]
fn an_entry_at_the_last_epoch_changes_no_more() {
    let at = |epoch| Partition { epoch, ..entry(&["a", "b"], &["c"]) };
    let asked = |epoch| ChangePartition { epoch, ..asks(PartitionChange::CaughtUp, "c") };
    let a_gone = case(&["a", "b"], &[("a", as_holder(Holder::Gone))]);
    assert_eq!(a_gone.step(&at(LAST_EPOCH - 1)).unwrap().next.epoch, LAST_EPOCH);
    assert_eq!(change(&at(LAST_EPOCH - 1), &asked(LAST_EPOCH - 1), &|_| alive()).unwrap().next.epoch, LAST_EPOCH);
    for epoch in [LAST_EPOCH, LAST_EPOCH + 1, u64::MAX] {
        assert_eq!(a_gone.step(&at(epoch)), None, "{epoch}");
        assert_eq!(change(&at(epoch), &asked(epoch), &|_| alive()), None, "{epoch}");
    }
    // A version is the epoch above a sequence of 40 bits, and not negative as a signed number.
    assert!(i64::try_from(LAST_EPOCH << 40 | ((1 << 40) - 1)).is_ok());
    assert!(i64::try_from((LAST_EPOCH + 1) << 40).is_err());
    assert!(!is_done(
        &named(entry(&["a", "b"], &[]), "b"),
        &ChangePartition { epoch: u64::MAX, ..asks(PartitionChange::CaughtUp, "b") }
    ));
}
