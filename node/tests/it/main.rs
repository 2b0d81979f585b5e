//! The store over a real SQLite file, against a model of what it should say.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers stop the test where they fail")]

mod batch;
mod counters;
mod explain;
mod healthcheck;
mod idempotency;
mod listing;
mod log;
mod messages;
mod model;
mod places;
mod settings;
mod support;

use std::sync::Arc;

use cairn_api_spec::{
    Outcome, Version,
    operation::{Durability, Tier},
    version::Condition,
};
use cairn_engine::TierError;
use cairn_node::error::NodeError;

use crate::support::{TestStore, delete, delete_with, get, head, put, put_with, value_of};

#[tokio::test]
async fn of_many_who_create_a_key_at_the_same_time_one_succeeds() {
    let store = Arc::new(TestStore::open(1000).await);
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.run(put_with("lock", &i.to_string(), Condition::Absent, None)).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap().unwrap() {
            Outcome::Stored { created: true, .. } => created += 1,
            Outcome::ConditionFailed(version) => assert!(version > Version::NONE),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn rows_that_several_read_at_the_same_time_are_found_by_all_of_them() {
    // The engine reads a row a second time when it changed while the first read waited.
    let store = TestStore::open(1).await;
    store.run(put("key", "value")).await.unwrap();
    let name = get("key").name;
    let reads = (0..200).map(|_| store.driver.disk.load(name.as_bytes().clone(), true));
    for (number, row) in futures_util::future::join_all(reads).await.into_iter().enumerate() {
        let value = row.unwrap().and_then(|row| row.value);
        assert_eq!(value.as_deref(), Some(&b"value"[..]), "read {number}");
    }
}

#[tokio::test]
async fn no_increment_is_lost_when_all_are_conditional() {
    // Memory for one entry: nearly every decision needs a look at the disk.
    let store = Arc::new(TestStore::open(1).await);
    store.run(put("counter", "0")).await.unwrap();
    store.run(put("other", "0")).await.unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    increment(&store).await;
                    store.run(get("other")).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value_of(&store.run(get("counter")).await.unwrap()), Some("320".to_owned()));
}

async fn increment(store: &TestStore) {
    loop {
        let found = store.run(get("counter")).await.unwrap();
        let Outcome::Found { metadata, .. } = &found else { panic!("{found:?}") };
        let next = value_of(&found).unwrap().parse::<u32>().unwrap() + 1;
        let condition = Condition::Matches(metadata.version);
        match store.run(put_with("counter", &next.to_string(), condition, None)).await.unwrap() {
            Outcome::Stored { created: false, .. } => return,
            Outcome::ConditionFailed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_write_to_memory_is_seen_at_once_and_is_on_the_disk_after_a_graceful_end() {
    let store = TestStore::open(1).await;
    for i in 0..50 {
        let write = put_with(&format!("key{i}"), &i.to_string(), Condition::None, Some(Durability::Memory));
        store.run(write).await.unwrap();
        let seen = store.run(get(&format!("key{i}"))).await.unwrap();
        assert_eq!(value_of(&seen), Some(i.to_string()));
    }
    let store = store.reopen().await;
    for i in 0..50 {
        let seen = store.run(get(&format!("key{i}"))).await.unwrap();
        assert_eq!(value_of(&seen), Some(i.to_string()));
    }
}

#[tokio::test]
async fn versions_grow_across_delete_and_restart() {
    let mut store = TestStore::open(10).await;
    let mut last = Version::NONE;
    for _ in 0..3 {
        for operation in [put("k", "1"), put("k", "2"), delete("k")] {
            let version = match store.run(operation).await.unwrap() {
                Outcome::Stored { metadata, .. } => metadata.version,
                Outcome::Deleted(version) => version,
                other => panic!("{other:?}"),
            };
            assert!(version > last, "{version} after {last}");
            last = version;
        }
        store = store.reopen().await;
    }
}

#[tokio::test]
async fn a_deletion_that_the_disk_has_not_got_is_read_with_its_version() {
    let store = TestStore::open(10).await;
    store.run(put("k", "1")).await.unwrap();
    let Outcome::Deleted(deleted) = store.run(delete_with("k", Durability::Memory)).await.unwrap() else {
        panic!("k was there")
    };
    let Outcome::Missing(version) = store.run(get("k")).await.unwrap() else { panic!("k is there") };
    assert_eq!(version, deleted);
}

#[tokio::test]
async fn what_memory_drops_comes_back_from_the_disk() {
    let store = TestStore::open(1).await;
    store.run(put("a", "1")).await.unwrap();
    store.run(put("b", "2")).await.unwrap();
    let Outcome::Found { tier, .. } = store.run(get("a")).await.unwrap() else { panic!("a is gone") };
    assert_eq!(tier, Tier::Disk);
    let Outcome::Found { tier, metadata, .. } = store.run(head("b")).await.unwrap() else { panic!("b is gone") };
    assert_eq!((tier, metadata.size), (Tier::Disk, 1));
}

#[tokio::test]
async fn a_row_that_was_tampered_with_is_an_error_and_never_a_value() {
    let store = TestStore::open(10).await;
    store.run(put("a", "the truth")).await.unwrap();
    let store = store.reopen_after("UPDATE entries SET value = CAST('a fable!' AS BLOB)").await;
    assert!(matches!(store.run(get("a")).await, Err(NodeError::Tier(TierError::Corrupt))));
}

#[tokio::test]
async fn a_partition_that_is_not_served_here_answers_nothing() {
    let store = TestStore::open(10).await;
    store.run(put("a", "1")).await.unwrap();
    store.serve_none();
    assert!(matches!(store.run(get("a")).await, Err(NodeError::Engine(cairn_engine::Error::NotOwner { .. }))));
    assert!(matches!(store.run(put("a", "2")).await, Err(NodeError::Engine(cairn_engine::Error::NotOwner { .. }))));
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused() {
    let store = TestStore::open(10).await;
    let error = store.run(put("a", &"x".repeat(support::MAX_VALUE_BYTES + 1))).await.unwrap_err();
    assert!(matches!(error, NodeError::ValueTooLarge { .. }));
    store.run(put("a", &"x".repeat(support::MAX_VALUE_BYTES))).await.unwrap();
}
