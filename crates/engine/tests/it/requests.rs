//! What an engine answers, request by request.

use bytes::Bytes;
use cairn_api_spec::{
    Outcome, Version,
    operation::{Durability, Metadata, Tier},
    peer::FirstOutcome,
    version::Condition,
};
use cairn_engine::{Change, Error, Head, Loaded, Refused, Request, TierError};

use crate::alone::{Alone, entry, get, name, put, with_key};

fn broken() -> TierError {
    TierError::Disk("input/output error".to_owned())
}

fn stored(answer: Option<Result<Outcome, Error>>) -> Version {
    match answer {
        Some(Ok(Outcome::Stored { metadata, .. })) => metadata.version,
        other => panic!("{other:?}"),
    }
}

fn found(answer: Option<Result<Outcome, Error>>) -> Bytes {
    match answer {
        Some(Ok(Outcome::Found { value: Some(value), .. })) => value,
        other => panic!("{other:?}"),
    }
}

fn first_outcome(version: Version) -> FirstOutcome {
    let (key, name) = ("again".to_owned(), name().as_bytes().clone());
    FirstOutcome { key, name, version: version.0, created: true, ..FirstOutcome::default() }
}

fn head(version: Version, expires_at: Option<u64>) -> Loaded {
    let metadata = Metadata { version, modified_at: 0, expires_at, size: 1, content_type: String::new() };
    Loaded::Head(Head { metadata, tombstone: false, uploaded: false, on_disk: true })
}

fn in_memory(request: Request) -> Request {
    Request { durability: Durability::Memory, ..request }
}

/// An engine whose key has a value that is on the disk and in memory, with the version of the value.
fn with_value() -> (Alone, Version) {
    let mut alone = Alone::new();
    alone.ask(0, put("first"));
    alone.load(&Ok(Loaded::Nothing));
    alone.store(&Ok(()));
    let version = stored(alone.answer(0));
    (alone, version)
}

#[test]
fn a_failed_condition_is_remembered_under_its_idempotency_key() {
    let (mut alone, version) = with_value();
    alone.ask(1, with_key(Request { condition: Condition::Absent, ..put("second") }));
    alone.recall(None);
    let note = alone.store(&Ok(()));
    assert!(matches!(note.data.change, Change::Note { refused: Refused::ConditionFailed(of), .. } if of == version));
    assert!(matches!(alone.answer(1), Some(Ok(Outcome::ConditionFailed(of))) if of == version));
    alone.ask(2, with_key(put("second")));
    let (refused, refused_version) = Refused::ConditionFailed(version).to_peer();
    alone.recall(Some(FirstOutcome { refused, refused_version, ..first_outcome(note.version) }));
    assert!(matches!(alone.answer(2), Some(Ok(Outcome::ConditionFailed(of))) if of == version));
    assert!(alone.writes.is_empty());
}

#[test]
fn a_request_that_waits_for_the_disk_for_too_long_is_told_that_it_hangs() {
    let mut alone = Alone::new();
    alone.ask(0, get());
    alone.ask(1, with_key(put("value")));
    alone.ask(2, with_key(put("value")));
    alone.pass(4_900);
    assert_eq!(alone.waiting(), 3);
    alone.pass(300);
    let hangs = |answer| matches!(answer, Some(Err(Error::Tier(TierError::DiskHangs))));
    assert!(hangs(alone.answer(0)) && hangs(alone.answer(1)));
    assert!(matches!(alone.answer(2), Some(Err(Error::Superseded))));
    assert_eq!(alone.waiting(), 0);
}

#[test]
fn a_write_that_is_not_stored_in_time_is_in_doubt_and_its_key_is_read_no_earlier() {
    let (mut alone, _) = with_value();
    alone.evict();
    alone.ask(1, put("second"));
    alone.load(&Ok(Loaded::Value(entry("first", 1, None), Tier::Disk)));
    alone.evict();
    alone.ask(2, get());
    alone.pass(5_200);
    assert!(matches!(alone.answer(1), Some(Err(Error::Superseded))));
    assert!(matches!(alone.answer(2), Some(Err(Error::PartitionOffline { .. }))));
}

#[test]
fn a_refusal_because_of_a_write_under_way_waits_for_that_write() {
    let (mut alone, _) = with_value();
    alone.ask(1, put("second"));
    alone.ask(2, Request { condition: Condition::Absent, ..put("third") });
    assert!(alone.answer(2).is_none());
    let write = alone.store(&Ok(()));
    assert!(matches!(alone.answer(2), Some(Ok(Outcome::ConditionFailed(version))) if version == write.version));
}

#[test]
fn those_who_read_a_key_at_the_same_time_share_one_read() {
    let mut alone = Alone::new();
    alone.ask(0, get());
    alone.ask(1, get());
    assert_eq!(alone.loads.len(), 1);
    alone.load(&Ok(Loaded::Value(entry("value", 1, None), Tier::Disk)));
    assert_eq!((found(alone.answer(0)), found(alone.answer(1))), (Bytes::from("value"), Bytes::from("value")));
}

#[test]
fn what_was_read_before_a_change_answers_nobody() {
    let (mut alone, _) = with_value();
    alone.evict();
    alone.ask(1, get());
    alone.ask(2, put("second"));
    alone.loads.swap(0, 1);
    alone.load(&Ok(head(Version(1), None)));
    alone.load(&Ok(Loaded::Value(entry("first", 1, None), Tier::Disk)));
    assert!(alone.answer(1).is_none());
    alone.store(&Ok(()));
    assert_eq!(found(alone.answer(1)), "second");
}

#[test]
fn a_value_whose_time_had_come_by_a_clock_that_was_set_back_is_read_again() {
    let mut alone = Alone::new();
    alone.ask(0, get());
    let expires_at = Some(alone.wall + 10);
    alone.load(&Ok(head(Version(1), expires_at)));
    assert!(alone.answer(0).is_none());
    alone.load(&Ok(Loaded::Value(entry("value", 1, expires_at), Tier::Disk)));
    assert_eq!(found(alone.answer(0)), "value");
}

#[test]
fn a_repeat_that_looks_for_its_upload_does_not_happen_again_when_the_key_changes() {
    let (mut alone, version) = with_value();
    let object = Request { durability: Durability::Object, ..with_key(put("first")) };
    alone.ask(1, object);
    alone.recall(Some(first_outcome(version)));
    alone.ask(2, put("second"));
    alone.store(&Ok(()));
    alone.load(&Ok(head(version, None)));
    assert!(alone.writes.is_empty() && alone.answer(1).is_none());
    alone.drive(|engine, step| engine.uploaded(name().as_bytes(), version, step));
    assert_eq!(stored(alone.answer(1)), version);
}

#[test]
fn a_repeat_waits_until_the_first_write_is_on_the_disk_at_last() {
    let (mut alone, _) = with_value();
    alone.ask(1, in_memory(with_key(put("second"))));
    alone.recall(None);
    let version = stored(alone.answer(1));
    alone.store(&Err(broken()));
    alone.ask(2, in_memory(with_key(put("second"))));
    assert!(alone.recalls.is_empty());
    alone.pass(1_000);
    alone.store(&Ok(()));
    alone.recall(Some(first_outcome(version)));
    assert_eq!(stored(alone.answer(2)), version);
}

#[test]
fn a_write_that_the_disk_refuses_does_not_hide_an_answered_one_that_is_not_stored() {
    let (mut alone, version) = with_value();
    alone.ask(1, in_memory(put("second")));
    alone.ask(2, put("third"));
    alone.store(&Err(broken()));
    alone.store(&Err(broken()));
    assert!(matches!(alone.answer(2), Some(Err(Error::Tier(_)))));
    alone.evict();
    alone.ask(3, get());
    assert!(alone.loads.is_empty());
    assert_eq!(found(alone.answer(3)), "second");
    assert!(stored(alone.answer(1)) > version);
}

#[test]
fn a_remembered_refusal_that_is_stored_does_not_hide_an_answered_write_that_is_not() {
    let (mut alone, _) = with_value();
    alone.ask(1, in_memory(put("second")));
    alone.store(&Err(broken()));
    alone.ask(2, with_key(Request { condition: Condition::Absent, ..put("third") }));
    alone.recall(None);
    alone.store(&Ok(()));
    alone.evict();
    alone.ask(3, get());
    assert_eq!(found(alone.answer(3)), "second");
}

#[test]
fn a_primary_that_goes_on_alone_does_not_bring_back_what_was_replaced() {
    let (mut alone, _) = with_value();
    alone.ask(1, in_memory(put("second")));
    alone.store(&Err(broken()));
    alone.ask(2, put("third"));
    alone.store(&Ok(()));
    assert_eq!(stored(alone.answer(2)).0, stored(alone.answer(1)).0 + 1);
    alone.add_learner();
    // What was answered is stored again, in vain.
    alone.store(&Err(broken()));
    alone.ask(3, put("fourth"));
    alone.store(&Err(broken()));
    assert!(matches!(alone.answer(3), Some(Err(Error::Superseded))));
    alone.drop_learner();
    alone.ask(4, get());
    assert_eq!(found(alone.answer(4)), "third");
}
