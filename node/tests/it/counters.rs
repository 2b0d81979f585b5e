//! Additions to counters, decided on whatever holds the newest value.

use std::{sync::Arc, time::Duration};

use cairn_api_spec::{
    ErrorCode, Operation, Outcome,
    operation::{Action, Durability, Metadata},
    version::Condition,
};
use cairn_node::{clock, error::NodeError};

use crate::support::{TestStore, add, delete, get, head, keyed, put, put_with, value_of};

async fn counted(store: &TestStore, operation: Operation) -> (i64, bool, Metadata) {
    match store.run(operation).await.unwrap() {
        Outcome::Counted { value, created, metadata } => (value, created, metadata),
        other => panic!("{other:?}"),
    }
}

fn lasting(key: &str, ttl: Duration) -> Operation {
    let action = Action::Increment { delta: 1, ttl: Some(ttl), durability: None };
    Operation { action, ..add(key, 1) }
}

#[tokio::test]
async fn of_additions_at_the_same_time_none_is_lost_wherever_the_value_is() {
    // Memory for one entry: many decisions need the value from the disk, others that of a write under way.
    let store = Arc::new(TestStore::open(1).await);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..20 {
                    seen.push(counted(&store, add("counter", 1)).await.0);
                    store.run(put("other", "0")).await.unwrap();
                }
                seen
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=320).collect::<Vec<_>>(), "each addition has a sum of its own");
    assert_eq!(value_of(&store.run(get("counter")).await.unwrap()), Some("320".to_owned()));
}

#[tokio::test]
async fn a_counter_goes_on_after_a_delete_from_nothing_and_after_a_restart_from_where_it_was() {
    let store = TestStore::open(10).await;
    let (value, created, first) = counted(&store, add("k", -3)).await;
    assert_eq!((value, created, first.size, first.content_type.as_str()), (-3, true, 2, "text/plain"));
    let store = store.reopen().await;
    let (value, created, second) = counted(&store, add("k", 5)).await;
    assert_eq!((value, created), (2, false));
    assert!(second.version > first.version);
    store.run(delete("k")).await.unwrap();
    let (value, created, third) = counted(&store, add("k", 1)).await;
    assert_eq!((value, created), (1, true));
    assert!(third.version > second.version);
}

#[tokio::test]
async fn only_a_counter_that_is_created_takes_the_time_to_live() {
    let store = TestStore::open(10).await;
    let created = counted(&store, lasting("k", Duration::from_secs(600))).await.2;
    assert_eq!(created.expires_at, Some(created.modified_at + 600_000));
    let later = counted(&store, lasting("k", Duration::from_secs(5))).await.2;
    assert_eq!(later.expires_at, created.expires_at);
    store.run(put("forever", "1")).await.unwrap();
    assert_eq!(counted(&store, lasting("forever", Duration::from_secs(5))).await.2.expires_at, None);

    let gone = counted(&store, lasting("short", Duration::from_millis(1))).await.2;
    while !matches!(store.run(head("short")).await.unwrap(), Outcome::Missing(_)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (value, created, again) = counted(&store, lasting("short", Duration::from_secs(600))).await;
    assert_eq!((value, created), (1, true), "what has expired counts as nothing");
    assert!(again.expires_at > gone.expires_at);
}

#[tokio::test]
async fn a_counter_that_expired_before_the_disk_had_it_counts_as_nothing() {
    let store = TestStore::open(1_000).await;
    let keys: Vec<_> = (0..200).map(|index| format!("k{index}")).collect();
    let ahead = |key, ttl| {
        let action = Action::Increment { delta: 1, ttl: Some(ttl), durability: Some(Durability::Memory) };
        Operation { action, ..add(key, 1) }
    };
    for key in &keys {
        let first = counted(&store, ahead(key, Duration::from_millis(1))).await.2;
        while clock::wall() <= first.expires_at.unwrap() {
            std::thread::yield_now();
        }
        let (value, created, second) = counted(&store, ahead(key, Duration::from_secs(600))).await;
        assert_eq!((value, created), (1, true), "{key}");
        assert_eq!(second.expires_at, Some(second.modified_at + 600_000));
    }
}

#[tokio::test]
async fn what_has_no_sum_is_refused_and_stays_as_it_is() {
    for lru_size in [1, 10] {
        let store = TestStore::open(lru_size).await;
        for value in ["one", "", "1.5", "9223372036854775807", &"1".repeat(50)] {
            // Decided on a write under way, on memory, and on the disk.
            for durability in [Durability::Memory, Durability::Disk] {
                let Outcome::Stored { metadata, .. } =
                    store.run(put_with("k", value, Condition::None, Some(durability))).await.unwrap()
                else {
                    panic!("it was not stored")
                };
                let error = store.run(add("k", 1)).await.unwrap_err();
                let NodeError::Engine(cairn_engine::Error::NotAnInteger { version, .. }) = error else {
                    panic!("{error:?}")
                };
                assert_eq!(version, metadata.version, "{value:?}");
                let error = cairn_api_spec::ApiError::from(error);
                assert_eq!((error.code, error.version), (ErrorCode::NotAnInteger, Some(version)));
                store.run(put("other", "0")).await.unwrap();
            }
            assert_eq!(value_of(&store.run(get("k")).await.unwrap()).as_deref(), Some(value));
        }
    }
}

#[tokio::test]
async fn a_condition_holds_for_an_addition_as_for_a_put() {
    let store = TestStore::open(10).await;
    let under = |condition| Operation { condition, ..add("k", 1) };
    assert!(matches!(store.run(under(Condition::Exists)).await.unwrap(), Outcome::ConditionFailed(_)));
    let (_, _, first) = counted(&store, under(Condition::Absent)).await;
    assert!(matches!(store.run(under(Condition::Absent)).await.unwrap(), Outcome::ConditionFailed(_)));
    assert_eq!(counted(&store, under(Condition::Matches(first.version))).await.0, 2);
    assert!(matches!(store.run(under(Condition::Matches(first.version))).await.unwrap(), Outcome::ConditionFailed(_)));
}

#[tokio::test]
async fn a_repeated_addition_is_answered_with_the_first_sum() {
    let store = TestStore::open(10).await;
    let first = counted(&store, keyed(lasting("k", Duration::from_secs(600)), "once")).await;
    assert_eq!((first.0, first.1), (1, true));
    counted(&store, add("k", 10)).await;
    assert_eq!(counted(&store, keyed(lasting("k", Duration::from_secs(600)), "once")).await, first);
    let store = store.reopen().await;
    assert_eq!(counted(&store, keyed(lasting("k", Duration::from_secs(600)), "once")).await, first);
    assert_eq!(value_of(&store.run(get("k")).await.unwrap()), Some("11".to_owned()));
}

#[tokio::test]
async fn a_key_that_named_an_addition_names_no_other_write() {
    let store = TestStore::open(10).await;
    counted(&store, keyed(add("k", 1), "added")).await;
    store.run(keyed(put("k", "1"), "put")).await.unwrap();
    for other in [keyed(put("k", "1"), "added"), keyed(delete("k"), "added"), keyed(add("k", 1), "put")] {
        assert!(matches!(store.run(other).await, Err(NodeError::Engine(cairn_engine::Error::KeyReused))));
    }
}
