//! The SDK against a cluster.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use cairn_client::{Cache, Error, ErrorCode, Event, EventKind, Version};
use futures_util::TryStreamExt as _;

use crate::support::{PATIENCE, TestCluster};

fn odd_keys() -> Vec<String> {
    let odd = [
        "plain",
        "a b",
        " ",
        "a/b",
        "a%2Fb",
        "/",
        "//",
        "/a",
        "a/",
        "%",
        "%%",
        "%zz",
        "%2e",
        ".",
        "..",
        "...",
        "a/../b",
        "../..",
        "./a",
        "a\\b",
        "\\",
        "?",
        "a?b=c",
        "#",
        "a#b",
        "+",
        "a+b",
        "&=",
        "ключ",
        "🗝/🪨",
        "_",
        "\"quoted\"",
        "a;b",
        "{x}",
        "[x]",
        "|^`",
        "'",
        "*",
    ];
    odd.into_iter().map(str::to_owned).chain(["x".repeat(1024), "ü".repeat(512), "/".repeat(1024)]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_keep_their_own_values() {
    let test = TestCluster::start().await;
    let keys = odd_keys();
    for key in &keys {
        assert!(test.cache.put(key, format!("value of {key}")).await.unwrap().created, "{key:?}");
    }
    for key in &keys {
        let value = test.cache.get(key).await.unwrap().unwrap_or_else(|| panic!("{key:?} is gone"));
        assert_eq!(value.bytes, format!("value of {key}"), "{key:?}");
    }
    let listed: Vec<_> = test.cache.list().limit(7).stream().try_collect().await.unwrap();
    let listed: Vec<String> = listed.into_iter().map(|entry| entry.key).collect();
    assert_eq!(listed, keys.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    for key in &keys {
        assert!(test.cache.delete(key).await.unwrap().is_some(), "{key:?}");
        assert_eq!(test.cache.get(key).await.unwrap(), None, "{key:?}");
        assert_eq!(test.cache.delete(key).await.unwrap(), None, "{key:?}");
    }
    assert!(test.cache.list().page().await.unwrap().keys.is_empty());
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_are_refused_before_anything_is_sent() {
    let test = TestCluster::start().await;
    for key in ["", "a\nb", "\0", "\u{85}", &"x".repeat(1025)] {
        let error = test.cache.get(key).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(_)), "{key:?}: {error}");
        assert_eq!(error.code(), Some(ErrorCode::InvalidKey));
    }
    assert_eq!(test.cache.bucket("No Bucket").unwrap_err().code(), Some(ErrorCode::InvalidBucket));
    test.stop().await;
}

/// Requests on keys that a server has answered, by its own count.
async fn key_requests(url: &str) -> f64 {
    let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let operations = metrics.lines().filter(|line| line.starts_with("cairn_operation_duration_seconds_count"));
    operations.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_straight_to_the_owners_and_listings_through_the_master() {
    let test = TestCluster::start().await;
    let before = key_requests(&test.cluster.master_url()).await;
    let mut nodes = BTreeSet::new();
    for i in 0..60 {
        let key = format!("key {i}");
        test.cache.put(&key, "x").await.unwrap();
        let value = test.cache.get(&key).await.unwrap().unwrap();
        nodes.insert(value.cache_status.split(';').next().unwrap().to_owned());
        test.cache.delete(&key).await.unwrap();
    }
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["node-1", "node-2", "node-3"]);
    assert_eq!(key_requests(&test.cluster.master_url()).await, before, "the master has seen none of them");
    let mut at_nodes = 0.0;
    for (_, url) in test.cluster.node_urls() {
        at_nodes += key_requests(&url).await;
    }
    assert_eq!(at_nodes, 180.0);
    test.cache.list().page().await.unwrap();
    assert_eq!(key_requests(&test.cluster.master_url()).await, before + 1.0);
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_and_tell_the_version() {
    let test = TestCluster::start().await;
    let cache = &test.cache;
    let first = cache.put("k", "1").if_absent().await.unwrap();
    assert!(first.created && first.version > Version::NONE);
    let taken = cache.put("k", "2").if_absent().await.unwrap_err();
    assert!(matches!(taken, Error::PreconditionFailed { version } if version == first.version), "{taken}");
    assert_eq!(taken.code(), Some(ErrorCode::PreconditionFailed));
    let second = cache.put("k", "2").if_match(first.version).await.unwrap();
    assert!(!second.created && second.version > first.version);
    assert!(cache.put("k", "3").if_match(first.version).await.is_err());
    assert!(cache.put("other", "3").if_present().await.is_err());
    assert!(cache.delete("k").if_match(first.version).await.is_err());
    assert!(cache.put("k", "3").if_none_match(second.version).await.is_err());
    assert_eq!(cache.get("k").await.unwrap().unwrap().version, second.version);
    let deleted = cache.delete("k").if_match(second.version).await.unwrap().unwrap();
    assert!(deleted > second.version);
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_increment_together_lose_no_update() {
    let test = TestCluster::start().await;
    let increments = (0..8).map(|_| {
        let cache = test.cache.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                increment(&cache).await;
            }
        })
    });
    for task in increments.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(test.cache.get("counter").await.unwrap().unwrap().bytes, "80");
    test.stop().await;
}

async fn increment(cache: &Cache) {
    loop {
        let value = cache.get("counter").await.unwrap();
        let number: u32 = value.as_ref().map_or(0, |v| std::str::from_utf8(&v.bytes).unwrap().parse().unwrap());
        let put = cache.put("counter", (number + 1).to_string());
        let put = match value {
            Some(value) => put.if_match(value.version),
            None => put.if_absent(),
        };
        match put.await {
            Ok(_) => return,
            Err(Error::PreconditionFailed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_keeps_its_type_and_lives_as_long_as_was_said() {
    let test = TestCluster::start().await;
    let cache = &test.cache;
    let put = cache.put("k", vec![0_u8, 255, 1]).content_type("image/x-nothing").ttl(Duration::from_secs(3600));
    put.await.unwrap();
    let value = cache.get("k").await.unwrap().unwrap();
    assert_eq!((value.bytes.as_ref(), value.content_type.as_str()), ([0, 255, 1].as_slice(), "image/x-nothing"));
    let left = value.expires.unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!((3590..=3600).contains(&left.as_secs()), "{left:?}");
    assert_eq!(cache.put("k", "x").ttl(Duration::ZERO).await.unwrap_err().code(), Some(ErrorCode::InvalidTtl));
    let refused = cache.put("k", "x").content_type("a\nb").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidParameter));

    let began = Instant::now();
    cache.put("short", "x").ttl(Duration::from_millis(300)).await.unwrap();
    while cache.get("short").await.unwrap().is_some() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_may_be_empty_or_large_but_not_too_large() {
    let test = TestCluster::start().await;
    for size in [0, 1, 3 << 20, 16 << 20] {
        let value: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
        test.cache.put("k", value.clone()).await.unwrap();
        assert!(test.cache.get("k").await.unwrap().unwrap().bytes == value, "{size} bytes");
    }
    let error = test.cache.put("k", vec![0; (16 << 20) + 1]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ValueTooLarge), "{error}");
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_sent_again_under_its_idempotency_key_is_done_once() {
    let test = TestCluster::start().await;
    let put = || test.cache.put("k", "1").idempotency_key("put once");
    let error = put().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidParameter), "a space is not allowed: {error}");
    let put = || test.cache.put("k", "1").if_absent().idempotency_key("put-once");
    let first = put().await.unwrap();
    test.cache.put("k", "2").await.unwrap();
    assert_eq!(put().await.unwrap(), first);
    assert_eq!(test.cache.get("k").await.unwrap().unwrap().bytes, "2", "it was not stored again");

    let delete = || test.cache.delete("k").idempotency_key("delete-once");
    let deleted = delete().await.unwrap().unwrap();
    test.cache.put("k", "3").await.unwrap();
    assert_eq!(delete().await.unwrap(), Some(deleted));
    assert_eq!(test.cache.get("k").await.unwrap().unwrap().bytes, "3", "it was not removed again");
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_may_be_stale_come_from_every_copy() {
    let test = TestCluster::start().await;
    test.cache.put("hot", "1").await.unwrap();
    let (began, mut from) = (Instant::now(), BTreeSet::new());
    while from.len() < 2 {
        assert!(began.elapsed() < PATIENCE, "{from:?}");
        if let Some(value) = test.cache.get("hot").eventual().await.unwrap() {
            assert_eq!(value.bytes, "1");
            let node = value.cache_status.split(';').next().unwrap().to_owned();
            from.insert((node, value.cache_status.ends_with("detail=replica")));
        }
    }
    assert_eq!(from.iter().filter(|(_, is_replica)| *is_replica).count(), 1, "{from:?}");
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_do_not_share_keys() {
    let test = TestCluster::start().await;
    let other = test.cache.bucket("other").unwrap();
    test.cache.put("k", "default").await.unwrap();
    assert_eq!(other.get("k").await.unwrap(), None);
    other.put("k", "other").await.unwrap();
    assert_eq!(test.cache.get("k").await.unwrap().unwrap().bytes, "default");
    assert_eq!(other.list().page().await.unwrap().keys.len(), 1);
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_is_asked_when_one_is_not_there() {
    let test = TestCluster::start().await;
    // Port 9 (discard) has no listener.
    let urls = format!("http://127.0.0.1:9,{}", test.cluster.master_url());
    let cache = Cache::connect(&urls).await.unwrap();
    cache.put("k", "x").await.unwrap();
    assert_eq!(cache.list().page().await.unwrap().keys.len(), 1);
    let nobody = Cache::builder().url("http://127.0.0.1:9").timeout(Duration::from_secs(2)).connect().await;
    assert!(matches!(nobody.unwrap_err(), Error::Unreachable(_)));
    test.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happens_to_the_keys_of_a_bucket_that_begin_as_wanted() {
    let test = TestCluster::start().await;
    let mut events = test.cache.events().prefix("user:").open().await.unwrap();
    let put = test.cache.put("user:1", "Ada").ttl(Duration::from_secs(3600)).await.unwrap();
    test.cache.put("other", "x").await.unwrap();
    test.cache.bucket("elsewhere").unwrap().put("user:1", "x").await.unwrap();
    let deleted = test.cache.delete("user:1").await.unwrap().unwrap();
    let next = async {
        let first = events.try_next().await.unwrap().unwrap();
        (first, events.try_next().await.unwrap().unwrap())
    };
    let (first, second) = tokio::time::timeout(PATIENCE, next).await.unwrap();
    let Event::Changed { kind, key, version, size, expires } = first else { panic!("{first:?}") };
    assert_eq!((kind, key.as_str(), version, size), (EventKind::Put, "user:1", put.version, Some(3)));
    assert!(expires.is_some());
    let gone = Event::Changed {
        kind: EventKind::Delete,
        key: "user:1".to_owned(),
        version: deleted,
        size: None,
        expires: None,
    };
    assert_eq!(second, gone);
    drop(events);
    test.stop().await;
}
