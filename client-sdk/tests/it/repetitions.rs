use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use cairn_client::{Cache, Error, ErrorCode, Version};

use crate::{
    connect, connect_for,
    fake::{Answer, Fake, problem, problem_after},
    master, stored, value,
};

#[tokio::test]
async fn a_write_of_which_nothing_is_known_is_sent_again_under_the_same_key() {
    let node = Fake::start(|_| Answer::Close).await;
    let master = master(&[&node.url], |_| stored()).await;
    let cache = connect(&master).await;
    for key in ["k", "."] {
        cache.put(key, "x").await.unwrap();
        cache.put(key, "x").if_absent().await.unwrap();
        cache.delete(key).await.unwrap();
        cache.put(key, "x").idempotency_key("mine").await.unwrap();
        cache.delete(key).idempotency_key("mine").await.unwrap();
    }
    let keys = node.idempotency_keys();
    assert_eq!(keys, master.idempotency_keys());
    assert_eq!(keys.len(), 10);
    assert_eq!(keys.iter().filter(|key| *key == "mine").count(), 4);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 7, "every other call has its own: {keys:?}");
}

#[tokio::test]
async fn an_idempotency_key_that_is_none_is_refused_before_anything_is_sent() {
    let node = Fake::start(|_| stored()).await;
    let master = master(&[&node.url], |_| stored()).await;
    for key in ["", "a b", "ü", &"k".repeat(256)] {
        let error = connect(&master).await.put("k", "x").idempotency_key(key).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(error) if error.code == ErrorCode::InvalidParameter), "{error}");
    }
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn every_failure_that_may_pass_is_repeated_reads_and_writes() {
    let proxy = || Answer::Reply("502 Bad Gateway", String::new(), "<html>".to_owned());
    let late = || Answer::Reply("504 Gateway Timeout", String::new(), String::new());
    for answer in [
        Answer::Close,
        proxy(),
        late(),
        problem(ErrorCode::Overloaded),
        problem(ErrorCode::OutcomeUnknown),
        problem(ErrorCode::ShuttingDown),
        problem(ErrorCode::BelowMinInSync),
    ] {
        let failures = AtomicUsize::new(0);
        let node = Fake::start(move |request| match failures.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => answer.clone(),
            _ if request.starts_with("GET") => value(),
            _ => stored(),
        })
        .await;
        let master = master(&[&node.url], |_| problem(ErrorCode::NoNodes)).await;
        let cache = connect(&master).await;
        cache.put("k", "x").await.unwrap();
        assert!(cache.get("k").await.unwrap().is_some());
        assert_eq!((node.seen().len(), master.operations().len()), (4, 2));
    }
}

#[tokio::test]
async fn a_failure_that_will_not_pass_is_told_at_once() {
    for code in [ErrorCode::Internal, ErrorCode::StorageFull] {
        let node = Fake::start(move |_| problem(code)).await;
        let master = master(&[&node.url], |_| stored()).await;
        let error = connect(&master).await.put("k", "x").await.unwrap_err();
        assert_eq!((error.code(), error.is_outcome_unknown()), (Some(code), code == ErrorCode::Internal), "{error}");
        assert_eq!((node.seen().len(), master.operations().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_later_promise_that_nothing_was_done_does_not_hold_for_an_earlier_attempt() {
    let node = Fake::start(|_| Answer::Close).await;
    for code in [ErrorCode::NoNodes, ErrorCode::StorageFull] {
        let master = master(&[&node.url], move |_| problem(code)).await;
        let cache = connect_for(&master, Duration::from_secs(1)).await;
        let error = cache.put("k", "x").await.unwrap_err();
        assert!(matches!(&error, Error::OutcomeUnknown(_)) && error.is_outcome_unknown(), "{error}");
        assert!(!cache.get("k").await.unwrap_err().is_outcome_unknown(), "a read is never in doubt");
    }
}

#[tokio::test]
async fn a_decision_is_believed_since_it_was_made_under_the_same_key() {
    let node = Fake::start(|_| Answer::Close).await;
    let master = master(&[&node.url], |_| problem(ErrorCode::PreconditionFailed)).await;
    let error = connect(&master).await.put("k", "x").if_match(Version(7)).await.unwrap_err();
    assert!(matches!(error, Error::PreconditionFailed { version: Version(7) }), "{error}");
}

#[tokio::test]
async fn a_pause_is_as_long_as_the_server_asks_and_ends_the_call_when_it_is_too_long() {
    let asked = AtomicUsize::new(0);
    let node = Fake::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => problem_after(ErrorCode::RateLimited, 1),
        1 => value(),
        _ => problem_after(ErrorCode::RateLimited, 100),
    })
    .await;
    let cache = connect(&master(&[&node.url], |_| value()).await).await;
    let began = Instant::now();
    assert!(cache.get("k").await.unwrap().is_some());
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(cache.get("k").await.unwrap_err().code(), Some(ErrorCode::RateLimited));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn repetitions_end_with_the_time_or_as_often_as_is_set() {
    let node = Fake::start(|_| problem(ErrorCode::Overloaded)).await;
    let master = master(&[&node.url], |_| problem(ErrorCode::NoNodes)).await;
    let cache = Cache::builder().url(&master.url).retries(2).connect().await.unwrap();
    assert_eq!(cache.get("k").await.unwrap_err().code(), Some(ErrorCode::Overloaded));
    assert_eq!((node.seen().len(), master.operations().len()), (2, 1));

    let began = Instant::now();
    let cache = connect_for(&master, Duration::from_secs(1)).await;
    assert_eq!(cache.get("k").await.unwrap_err().code().map(ErrorCode::status), Some(503));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let silent = Fake::start(|_| Answer::Hang).await;
    let late = Cache::builder().url(&silent.url).timeout(Duration::from_millis(200)).connect().await;
    assert!(matches!(late.unwrap_err(), Error::Unreachable(_)));
}

#[tokio::test]
async fn a_silent_owner_leaves_time_to_ask_the_master() {
    let node = Fake::start(|_| Answer::Hang).await;
    let master = master(&[&node.url], |_| stored()).await;
    let cache = connect_for(&master, Duration::from_secs(4)).await;
    cache.put("k", "x").await.unwrap();
    assert_eq!(node.idempotency_keys(), master.idempotency_keys());
}
