//! Where a key is and why.

use std::{sync::Arc, time::Duration};

use cairn_api_spec::{
    Operation, Outcome, Version,
    data::{Explanation, KeyState},
    operation::{Action, Durability, Tier},
    version::Condition,
};

use tokio_util::task::AbortOnDropHandle;

use crate::support::{TestStore, delete, get, head, put, put_with};

async fn explain(store: &TestStore, key: &str) -> Explanation {
    match store.run(Operation { action: Action::Explain, ..get(key) }).await.unwrap() {
        Outcome::Explained(explanation) => *explanation,
        other => panic!("{other:?}"),
    }
}

fn version_of(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Stored { metadata, .. } => metadata.version,
        Outcome::Deleted(version) => *version,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_never_written_then_live_then_deleted() {
    let store = TestStore::open(10).await;
    let never = explain(&store, "k").await;
    assert_eq!(
        (never.state, never.version, never.size, never.tier),
        (KeyState::NeverWritten, Version::NONE, None, None)
    );

    let version = version_of(&store.run(put("k", "value")).await.unwrap());
    let live = explain(&store, "k").await;
    assert_eq!((live.state, live.version, live.size), (KeyState::Live, version, Some(5)));
    assert_eq!((live.bucket.as_str(), live.key.as_str(), live.node.as_str()), ("default", "k", "node"));
    assert_eq!(
        (live.primary.as_str(), live.in_sync, live.learners.len(), live.epoch),
        ("node", vec!["node".to_owned()], 0, 1)
    );
    assert_eq!((live.ttl, live.expires_at, live.uploaded, live.write_pending), (None, None, None, false));

    let version = version_of(&store.run(delete("k")).await.unwrap());
    let deleted = explain(&store, "k").await;
    assert_eq!((deleted.state, deleted.version, deleted.size), (KeyState::Deleted, version, None));
    assert!(deleted.detail.contains(&version.to_string()), "{}", deleted.detail);
}

#[tokio::test]
async fn the_tier_is_the_highest_that_has_the_value_and_asking_does_not_change_it() {
    let store = TestStore::open(1).await;
    store.run(put("first", "1")).await.unwrap();
    assert_eq!(explain(&store, "first").await.tier, Some(Tier::Memory));
    store.run(put("second", "2")).await.unwrap();
    assert_eq!(explain(&store, "first").await.tier, Some(Tier::Disk));
    assert_eq!(explain(&store, "first").await.tier, Some(Tier::Disk), "it was not read");
    assert_eq!(explain(&store, "second").await.tier, Some(Tier::Memory));
}

#[tokio::test]
async fn a_write_that_the_disk_does_not_have_yet_is_explained_too() {
    let store = TestStore::open(10).await;
    for round in 0..50 {
        let value = "x".repeat(round);
        let version =
            version_of(&store.run(put_with("k", &value, Condition::None, Some(Durability::Memory))).await.unwrap());
        let told = explain(&store, "k").await;
        assert_eq!((told.state, told.version, told.size), (KeyState::Live, version, Some(round as u64)));
    }
}

#[tokio::test]
async fn an_expired_key_says_so_and_how_much_time_is_left_of_another() {
    let store = TestStore::open(10).await;
    let lasting = |key: &str, ttl| {
        let Action::Put(put) = put(key, "1").action else { panic!("it is a put") };
        Operation { action: Action::Put(cairn_api_spec::operation::Put { ttl: Some(ttl), ..put }), ..get(key) }
    };
    store.run(lasting("long", Duration::from_secs(600))).await.unwrap();
    let live = explain(&store, "long").await;
    assert_eq!(live.state, KeyState::Live);
    assert!((500..=600).contains(&live.ttl.unwrap()), "{live:?}");
    assert!(live.expires_at.unwrap() > live.modified_at.unwrap());

    let version = version_of(&store.run(lasting("short", Duration::from_millis(1))).await.unwrap());
    while !matches!(store.run(head("short")).await.unwrap(), Outcome::Missing(_)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let expired = explain(&store, "short").await;
    assert_eq!((expired.state, expired.version, expired.ttl, expired.tier), (KeyState::Expired, version, None, None));
    assert!(expired.detail.contains("expired"), "{}", expired.detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_always_being_written_is_explained_at_once() {
    let store = Arc::new(TestStore::open(100).await);
    store.run(put("k", "0")).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let action = Action::Increment { delta: 1, ttl: None, durability: None };
                    store.run(Operation { action, ..get("k") }).await.unwrap();
                }
            }))
        })
        .collect();
    let mut version = Version::NONE;
    for _ in 0..20 {
        let explained = tokio::time::timeout(Duration::from_secs(1), explain(&store, "k")).await.unwrap();
        assert_eq!(explained.state, KeyState::Live);
        assert!(explained.version >= version, "{explained:?}");
        version = explained.version;
    }
    drop(writers);
}
