//! The steps that the master takes by itself, one by one.

use cairn_api_spec::cluster::{Partition, PartitionChange};
use cairn_placement::{Holder, Reason, Standing, change};

use crate::support::{Case, alive, as_holder, asks, case, clock_off, entry, leaving, named, with_session};

#[test]
fn a_partition_without_a_primary_is_assigned_to_the_first_that_can_take_it() {
    let empty = Partition { id: 3, ..Partition::default() };
    let assigned = |id| Partition { generation: 1, ..entry(&[id], &[]) };
    case(&["a", "b"], &[]).expect(&empty, Reason::Assigned, &assigned("a"));
    case(&["a", "b"], &[("a", as_holder(Holder::Silent))]).expect(&empty, Reason::Assigned, &assigned("b"));
    case(&[], &[]).expect_none(&empty);
}

#[test]
fn a_silent_primary_keeps_its_partitions_until_it_is_gone() {
    let current = entry(&["a", "b", "c"], &["d"]);
    let silent = ("a", as_holder(Holder::Silent));
    case(&["a", "b"], &[silent]).expect_none(&current);
    // Nor does it lose the replicas that may be all there is, should it not come back.
    case(&["a", "b"], &[silent, ("b", as_holder(Holder::Gone))]).expect_none(&current);
    for holder in [Holder::Gone, Holder::Removed, Holder::DataLost, Holder::Restarted { settled: false }] {
        let a_is = case(&["a", "b"], &[("a", as_holder(holder))]);
        let is_lost = matches!(holder, Holder::Removed | Holder::DataLost);
        let left: &[&str] = if is_lost { &["b", "c"] } else { &["b", "a", "c"] };
        a_is.expect(&current, Reason::Promoted, &entry(left, &[]));
    }
}

#[test]
fn the_replica_that_should_be_primary_is_promoted_and_takes_out_those_that_do_not_answer_itself() {
    let current = entry(&["a", "b", "c", "d"], &[]);
    let (a, b) = (("a", as_holder(Holder::Gone)), ("b", as_holder(Holder::Silent)));
    case(&["d", "a"], &[a, b]).expect(&current, Reason::Promoted, &entry(&["d", "a", "b", "c"], &[]));
    case(&["d", "a"], &[a, b, ("d", leaving())]).expect(&current, Reason::Promoted, &entry(&["c", "a", "b", "d"], &[]));
}

#[test]
fn a_restarted_primary_goes_on_when_no_replica_answers() {
    let current = entry(&["a", "b"], &["c"]);
    let a = ("a", as_holder(Holder::Restarted { settled: false }));
    // It may have lost what only memory held, and a silent replica not.
    case(&["a", "b"], &[a, ("b", as_holder(Holder::Silent))]).expect_none(&current);
    for other in [Holder::Gone, Holder::Restarted { settled: true }, Holder::DataLost, Holder::Removed] {
        let resumed = with_session(entry(&["a"], &[]), "a", 2);
        case(&["a", "b"], &[a, ("b", as_holder(other))]).expect(&current, Reason::Resumed, &resumed);
    }
}

#[test]
fn a_restarted_replica_goes_on_alone_only_when_its_old_promises_are_over() {
    let current = entry(&["a", "b"], &[]);
    for primary in [Holder::Gone, Holder::DataLost, Holder::Removed] {
        let b_is =
            |settled| case(&["a", "b"], &[("a", as_holder(primary)), ("b", as_holder(Holder::Restarted { settled }))]);
        b_is(false).expect_none(&current);
        b_is(true).expect(&current, Reason::Resumed, &with_session(entry(&["b"], &[]), "b", 2));
    }
}

#[test]
fn a_copy_that_may_come_back_with_its_data_is_waited_for() {
    let current = entry(&["a", "b"], &[]);
    for (a, b) in [
        (Holder::Gone, Holder::Gone),
        (Holder::DataLost, Holder::Silent),
        (Holder::Removed, Holder::Gone),
        (Holder::Gone, Holder::Removed),
    ] {
        case(&["c", "d"], &[("a", as_holder(a)), ("b", as_holder(b))]).expect_none(&current);
    }
}

#[test]
fn with_every_copy_lost_the_partition_begins_anew() {
    let current = entry(&["a", "b"], &["c"]);
    let lost = [("a", as_holder(Holder::DataLost)), ("b", as_holder(Holder::Removed))];
    let anew = Partition { generation: 6, ..entry(&["a"], &[]) };
    case(&["a", "c"], &lost).expect(&current, Reason::Reassigned, &anew);
}

#[test]
fn a_quorum_is_promoted_only_with_a_copy_of_every_write_in_it() {
    let current = entry(&["a", "b", "c"], &[]);
    let two_of_three = |a, b| {
        let standings = [("a", as_holder(a)), ("b", as_holder(b))];
        Case { write_quorum: Some(2), ..case(&["a", "b", "c"], &standings) }
    };
    two_of_three(Holder::Gone, Holder::Alive).expect(&current, Reason::Promoted, &entry(&["b", "a", "c"], &[]));
    for other in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: false }] {
        two_of_three(Holder::Gone, other).expect_none(&current);
    }
    // Until what these two have is in one place, two of three are needed again.
    let resumed = with_session(entry(&["c", "b", "a"], &[]), "b", 2);
    two_of_three(Holder::Gone, Holder::Restarted { settled: true }).expect(&current, Reason::Resumed, &resumed);
    // Nor can a primary take over without the others' word, if they were restarted: it goes on with one of them.
    let unsettled = Holder::Restarted { settled: false };
    let two_restarted = |b| Case {
        write_quorum: Some(2),
        ..case(&["b", "a", "c"], &[("b", as_holder(b)), ("c", as_holder(unsettled))])
    };
    two_restarted(unsettled).expect_none(&current);
    let resumed = with_session(entry(&["a", "b", "c"], &[]), "b", 2);
    two_restarted(Holder::Restarted { settled: true }).expect(&current, Reason::Resumed, &resumed);
    // With more copies lost than the promise covers, what is left goes on.
    two_of_three(Holder::DataLost, Holder::DataLost).expect(&current, Reason::Promoted, &entry(&["c"], &[]));
}

#[test]
fn a_replica_whose_data_are_gone_leaves_the_in_sync_set_and_any_other_is_the_primarys_to_judge() {
    let current = entry(&["a", "b"], &[]);
    for holder in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }] {
        case(&["a", "b"], &[("b", as_holder(holder))]).expect_none(&current);
    }
    for holder in [Holder::Removed, Holder::DataLost] {
        let b_is = case(&["a", "b"], &[("b", as_holder(holder))]);
        b_is.expect(&current, Reason::ReplicaLost, &entry(&["a"], &[]));
    }
}

#[test]
fn a_lost_copy_of_a_quorum_is_the_primarys_to_judge_while_the_others_may_tell_it_everything() {
    let current = entry(&["a", "b", "c"], &[]);
    let two_of_three = |b, c| {
        let standings = [("b", as_holder(b)), ("c", as_holder(c))];
        Case { write_quorum: Some(2), ..case(&["a", "b", "c"], &standings) }
    };
    // A write may be on the lost copy and on the one that is gone for the moment.
    for other in [Holder::Alive, Holder::Silent, Holder::Gone] {
        two_of_three(Holder::DataLost, other).expect_none(&current);
    }
    two_of_three(Holder::DataLost, Holder::Removed).expect(&current, Reason::ReplicaLost, &entry(&["a"], &[]));
    let a_gone = [("a", as_holder(Holder::Gone)), ("b", as_holder(Holder::DataLost))];
    let four = entry(&["a", "b", "c", "d"], &[]);
    let next = Case { write_quorum: Some(3), ..case(&["a", "b", "c", "d"], &a_gone) };
    next.expect(&four, Reason::Promoted, &entry(&["c", "a", "b", "d"], &[]));
}

#[test]
fn a_surplus_copy_of_a_quorum_that_is_away_is_the_primarys_to_judge() {
    let current = entry(&["a", "b", "c", "d"], &[]);
    let quorum = |holder| Case { write_quorum: Some(2), ..case(&["a", "b", "c"], &[("d", as_holder(holder))]) };
    for holder in [Holder::Silent, Holder::Gone, Holder::Restarted { settled: true }] {
        quorum(holder).expect_none(&current);
    }
    quorum(Holder::Alive).expect(&current, Reason::Released, &entry(&["a", "b", "c"], &[]));
}

#[test]
fn a_learner_that_is_silent_or_leaving_or_not_wanted_is_given_up() {
    let current = entry(&["a"], &["b"]);
    let dropped = entry(&["a"], &[]);
    for standing in [as_holder(Holder::Silent), as_holder(Holder::Restarted { settled: false }), leaving()] {
        case(&["a", "b"], &[("b", standing)]).expect(&current, Reason::LearnerDropped, &dropped);
    }
    case(&["a", "c"], &[]).expect(&current, Reason::LearnerDropped, &dropped);
}

#[test]
fn everyone_who_should_hold_the_partition_learns_it_at_once() {
    let all = ["b", "a", "c"];
    case(&all, &[]).expect(&entry(&["a"], &[]), Reason::LearnerAdded, &entry(&["a"], &["b", "c"]));
    case(&all, &[]).expect_none(&entry(&["a"], &["b", "c"]));
    Case { may_copy: false, ..case(&all, &[]) }.expect_none(&entry(&["a"], &[]));
    let standings = [("b", as_holder(Holder::Silent)), ("c", leaving())];
    case(&all, &standings).expect_none(&entry(&["a"], &[]));
}

#[test]
fn a_restarted_node_learns_again_under_its_new_session() {
    let asked = asks(PartitionChange::Remove, "b");
    let standing = |id: &str| if id == "b" { as_holder(Holder::Restarted { settled: false }) } else { alive() };
    let lost = change(&entry(&["a", "b"], &[]), &asked, &standing).unwrap().next;
    // No longer a holder, it is just a node that is there.
    let fresh = [("b", Standing { session: 2, ..alive() })];
    let learns = with_session(entry(&["a"], &["b"]), "b", 2);
    case(&["a", "b"], &fresh).expect(&lost, Reason::LearnerAdded, &Partition { epoch: 6, ..learns });
}

#[test]
fn a_leaving_primary_hands_over_and_a_leaving_replica_is_left_to_its_primary() {
    let current = entry(&["a", "b"], &[]);
    let a_leaves = case(&["a", "b"], &[("a", leaving())]);
    a_leaves.expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    a_leaves.expect_none(&named(current.clone(), "b"));
    let b_is_primary = case(&["b", "a"], &[("a", leaving())]);
    b_is_primary.expect_none(&entry(&["b", "a"], &[]));
    // Once its primary has taken it out, it is not copied to again.
    b_is_primary.expect_none(&entry(&["b"], &[]));
    case(&["a"], &[("a", leaving())]).expect_none(&entry(&["a"], &[]));
    case(&["a", "b"], &[("a", leaving()), ("b", leaving())]).expect_none(&current);
}

#[test]
fn the_desired_primary_is_named_when_it_is_in_sync() {
    let current = entry(&["a", "b"], &[]);
    let b_first = case(&["b", "a"], &[]);
    b_first.expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    b_first.expect_none(&named(current.clone(), "b"));
    case(&["b", "c"], &[]).expect_none(&entry(&["a", "b"], &["c"]));
    case(&["a", "b"], &[]).expect(&named(current.clone(), "b"), Reason::SuccessorWithdrawn, &current);
    let b_silent = case(&["b", "a"], &[("b", as_holder(Holder::Silent))]);
    b_silent.expect(&named(current.clone(), "b"), Reason::SuccessorWithdrawn, &current);
}

#[test]
fn others_are_released_once_everyone_wanted_is_in_sync_and_answers() {
    let current = entry(&["a", "b", "c", "d"], &[]);
    case(&["a", "c"], &[]).expect(&current, Reason::Released, &entry(&["a", "c"], &[]));
    case(&["a", "c"], &[("c", as_holder(Holder::Silent))]).expect_none(&current);
    case(&["a", "e"], &[]).expect_none(&entry(&["a", "b"], &["e"]));
}

#[test]
fn a_primary_whose_clock_is_off_hands_over_to_a_copy_whose_clock_is_right() {
    let current = entry(&["a", "b", "c"], &[]);
    let off =
        |ids: &[&'static str]| case(&["a", "b", "c"], &ids.iter().map(|&id| (id, clock_off())).collect::<Vec<_>>());
    off(&["a"]).expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    off(&["a", "b"]).expect(&current, Reason::SuccessorNamed, &named(current.clone(), "c"));
    // It keeps its copy, and is not made the primary again while its clock is off.
    off(&["a"]).expect_none(&named(current.clone(), "b"));
    off(&["a"]).expect_none(&entry(&["b", "a", "c"], &[]));
    // Nothing else is waited for: a learner begins again.
    let learned = entry(&["a", "b"], &["c"]);
    off(&["a"]).expect(&learned, Reason::SuccessorNamed, &named(learned.clone(), "b"));
    // Named before its clock was off.
    let b_off = off(&["b"]);
    b_off.expect(&named(current.clone(), "b"), Reason::SuccessorWithdrawn, &current);
    // Other clocks that are off make no difference while all are.
    off(&["a", "b", "c"]).expect_none(&current);
    let all_off =
        |desired: &[&str]| Case { desired: desired.iter().map(|&id| id.to_owned()).collect(), ..off(&["a", "b", "c"]) };
    all_off(&["b", "a", "c"]).expect_none(&current);
    // But a node that is to hold nothing any more comes free.
    all_off(&["b", "c"]).expect(&current, Reason::SuccessorNamed, &named(current.clone(), "b"));
    // A silent copy cannot take over, whatever its clock.
    let silent = [("a", clock_off()), ("b", as_holder(Holder::Silent))];
    case(&["a", "b"], &silent).expect_none(&entry(&["a", "b"], &[]));
}

#[test]
fn whoever_leads_next_has_a_clock_that_is_right_if_any_copy_has() {
    let current = entry(&["a", "b", "c"], &[]);
    let gone = ("a", as_holder(Holder::Gone));
    case(&["b", "c", "a"], &[gone, ("b", clock_off())]).expect(
        &current,
        Reason::Promoted,
        &entry(&["c", "a", "b"], &[]),
    );
    let nobody = [gone, ("b", clock_off()), ("c", clock_off())];
    case(&["c", "b", "a"], &nobody).expect(&current, Reason::Promoted, &entry(&["c", "a", "b"], &[]));
    let leaves = ("a", leaving());
    let after = named(current.clone(), "c");
    case(&["a", "b", "c"], &[leaves, ("b", clock_off())]).expect(&current, Reason::SuccessorNamed, &after);
    // The one that stops is no better than one whose clock is off.
    let two = entry(&["a", "b"], &[]);
    let b_off = [leaves, ("b", clock_off())];
    case(&["a", "b"], &b_off).expect(&two, Reason::SuccessorNamed, &named(two.clone(), "b"));
    let empty = Partition { id: 3, ..Partition::default() };
    let assigned = |id| Partition { generation: 1, ..entry(&[id], &[]) };
    case(&["a", "b"], &[("a", clock_off())]).expect(&empty, Reason::Assigned, &assigned("b"));
    let both = [("a", clock_off()), ("b", clock_off())];
    case(&["a", "b"], &both).expect(&empty, Reason::Assigned, &assigned("a"));
}

#[test]
fn a_node_whose_clock_is_off_learns_and_comes_in_sync() {
    let off = [("b", clock_off())];
    case(&["a", "b"], &off).expect(&entry(&["a"], &[]), Reason::LearnerAdded, &entry(&["a"], &["b"]));
    let asked = asks(PartitionChange::CaughtUp, "b");
    let standing = |id: &str| if id == "b" { clock_off() } else { alive() };
    assert_eq!(change(&entry(&["a"], &["b"]), &asked, &standing).unwrap().reason, Reason::CaughtUp);
    // It is not made the primary that it should be, and nothing else waits for that.
    case(&["b", "a"], &off).expect_none(&entry(&["a", "b"], &[]));
    case(&["b", "a"], &off).expect(&entry(&["a", "b", "c"], &[]), Reason::Released, &entry(&["a", "b"], &[]));
}

#[test]
fn a_restarted_primary_of_a_quorum_goes_on_with_a_copy_that_may_have_what_it_lacks() {
    let current = entry(&["a", "b", "c"], &[]);
    let two_of_three = |a, b, c| {
        let standings = [("a", as_holder(a)), ("b", as_holder(b)), ("c", as_holder(c))];
        Case { write_quorum: Some(2), ..case(&["a", "b", "c"], &standings) }
    };
    let [settled, unsettled] = [true, false].map(|settled| Holder::Restarted { settled });
    let resumed = with_session(entry(&["a", "c", "b"], &[]), "a", 2);
    two_of_three(settled, Holder::Gone, Holder::Alive).expect(&current, Reason::Resumed, &resumed);
    // Of those who were started anew, none takes the place of one that was not.
    two_of_three(settled, settled, Holder::Alive).expect(&current, Reason::Resumed, &resumed);
    two_of_three(unsettled, Holder::Gone, Holder::Alive).expect_none(&current);
    two_of_three(settled, Holder::Gone, Holder::Gone).expect_none(&current);
    let alone = with_session(entry(&["a"], &[]), "a", 2);
    two_of_three(unsettled, Holder::DataLost, Holder::Removed).expect(&current, Reason::Resumed, &alone);
}

#[test]
fn a_silent_copy_is_waited_for_before_others_go_on_without_what_memory_alone_held() {
    let current = entry(&["a", "b", "c"], &[]);
    let (gone, silent) = (("a", as_holder(Holder::Gone)), ("c", as_holder(Holder::Silent)));
    let b = ("b", as_holder(Holder::Restarted { settled: true }));
    case(&["a", "b", "c"], &[gone, b, silent]).expect_none(&current);
    let quorum = |standings: &[_]| Case { write_quorum: Some(2), ..case(&["a", "b", "c"], standings) };
    quorum(&[("a", b.1), b, silent]).expect_none(&current);
    quorum(&[b, silent]).expect_none(&current);
}
