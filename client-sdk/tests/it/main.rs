//! Where requests go, and which of them are repeated, against servers that misbehave as told.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod fake;

use std::time::Duration;

use cairn_client::{Cache, Error, ErrorCode, Version};

use crate::fake::{Answer, Fake, problem, ring};

async fn connect(master: &Fake) -> Cache {
    Cache::builder().url(&master.url).timeout(Duration::from_secs(20)).connect().await.unwrap()
}

fn value() -> Answer {
    Answer::Reply("200 OK", "ETag: \"7\"\r\nContent-Type: text/plain\r\n".to_owned(), "value".to_owned())
}

fn stored() -> Answer {
    Answer::Reply("204 No Content", "ETag: \"8\"\r\n".to_owned(), String::new())
}

/// A master whose map has one partition, held by `owner`, and which answers all else with `keys`.
async fn master(owner: &str, keys: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Fake {
    let ring = ring(1, owner);
    Fake::start(move |request| match request.starts_with("GET /ring ") {
        true => ring.clone(),
        false => keys(request),
    })
    .await
}

#[tokio::test]
async fn after_not_owner_the_map_is_fetched_and_the_new_owner_asked() {
    let new = Fake::start(|_| value()).await;
    let old = Fake::start(|_| problem(421, ErrorCode::NotOwner)).await;
    let (first, then) = (ring(1, &old.url), ring(2, &new.url));
    let asked = std::sync::atomic::AtomicBool::new(false);
    let master = Fake::start(move |_| match asked.swap(true, std::sync::atomic::Ordering::Relaxed) {
        false => first.clone(),
        true => then.clone(),
    })
    .await;
    let cache = connect(&master).await;
    assert_eq!(cache.get("k").await.unwrap().unwrap().bytes, "value");
    cache.get("k").await.unwrap();
    assert_eq!(old.seen(), ["GET /keys/k?bucket=default"]);
    assert_eq!(new.seen().len(), 2);
    assert_eq!(master.seen(), ["GET /ring", "GET /ring"]);
}

#[tokio::test]
async fn a_map_that_does_not_help_leads_to_the_master() {
    let node = Fake::start(|_| problem(421, ErrorCode::NotOwner)).await;
    let master = master(&node.url, |_| value()).await;
    assert!(connect(&master).await.get("k").await.unwrap().is_some());
    assert_eq!(node.seen().len(), 2);
    assert_eq!(master.seen(), ["GET /ring", "GET /ring", "GET /keys/k?bucket=default"]);
}

#[tokio::test]
async fn the_master_serves_what_an_unreachable_owner_cannot_reads_and_writes() {
    // Port 9 (discard) has no listener.
    let master =
        master("http://127.0.0.1:9", |request| if request.starts_with("GET") { value() } else { stored() }).await;
    let cache = connect(&master).await;
    for key in ["k", ".."] {
        assert_eq!(cache.get(key).await.unwrap().unwrap().version, Version(7), "{key}");
        assert!(!cache.put(key, "x").await.unwrap().created, "{key}");
        assert_eq!(cache.delete(key).await.unwrap(), Some(Version(8)), "{key}");
    }
    assert_eq!(master.seen()[4], "GET /keys/%2E%2E?bucket=default");
}

#[tokio::test]
async fn a_write_of_which_nothing_is_known_is_sent_once() {
    let node = Fake::start(|_| Answer::Close).await;
    let master = master(&node.url, |request| if request.starts_with("GET") { value() } else { stored() }).await;
    let cache = connect(&master).await;
    for key in ["k", "."] {
        let before = node.seen().len();
        let error = cache.put(key, "x").await.unwrap_err();
        assert!(matches!(&error, Error::OutcomeUnknown(_)) && error.is_outcome_unknown(), "{error}");
        assert!(matches!(cache.put(key, "x").if_absent().await.unwrap_err(), Error::OutcomeUnknown(_)));
        assert!(matches!(cache.delete(key).await.unwrap_err(), Error::OutcomeUnknown(_)));
        assert_eq!(node.seen().len() - before, 3, "{:?}", node.seen());
    }
    assert_eq!(master.seen(), ["GET /ring"]);
    assert!(cache.get("k").await.unwrap().is_some(), "a read is repeated");
}

#[tokio::test]
async fn a_write_under_if_match_is_repeated_and_never_mistaken_for_another_ones() {
    let node = Fake::start(|_| Answer::Close).await;
    let takes = master(&node.url, |_| stored()).await;
    assert_eq!(connect(&takes).await.put("k", "x").if_match(Version(7)).await.unwrap().version, Version(8));
    let refuses = master(&node.url, |_| problem(412, ErrorCode::PreconditionFailed)).await;
    let error = connect(&refuses).await.put("k", "x").if_match(Version(7)).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown(_)), "the first attempt may have been the cause: {error}");
    let node = Fake::start(|_| problem(412, ErrorCode::PreconditionFailed)).await;
    let error = connect(&master(&node.url, |_| stored()).await).await.put("k", "x").if_match(Version(7)).await;
    assert!(matches!(error.unwrap_err(), Error::PreconditionFailed { version: Version(7) }));
}

#[tokio::test]
async fn a_refusal_that_promises_no_effect_is_repeated_and_a_failure_is_not() {
    let node = Fake::start(|_| problem(503, ErrorCode::Overloaded)).await;
    let takes = master(&node.url, |_| stored()).await;
    connect(&takes).await.put("k", "x").await.unwrap();
    for code in [ErrorCode::Internal, ErrorCode::OutcomeUnknown, ErrorCode::ShuttingDown] {
        let node = Fake::start(move |_| problem(code.status(), code)).await;
        let master = master(&node.url, |_| stored()).await;
        let error = connect(&master).await.put("k", "x").await.unwrap_err();
        assert!(error.code() == Some(code) && error.is_outcome_unknown(), "{error}");
        assert_eq!(node.seen().len(), 1);
    }
}

#[tokio::test]
async fn repetitions_end() {
    let node = Fake::start(|_| problem(503, ErrorCode::Overloaded)).await;
    let master = master(&node.url, |_| problem(503, ErrorCode::NoNodes)).await;
    let cache = Cache::builder().url(&master.url).retries(2).connect().await.unwrap();
    let error = cache.get("k").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoNodes));
    assert_eq!((node.seen().len(), master.seen().len()), (1, 3));
    let silent = Fake::start(|_| Answer::Hang).await;
    let late = Cache::builder().url(&silent.url).timeout(Duration::from_millis(200)).connect().await;
    assert!(matches!(late.unwrap_err(), Error::Unreachable(_)));
}

#[tokio::test]
async fn an_answer_outside_the_contract_is_told_and_not_believed() {
    let node = Fake::start(|_| Answer::Reply("502 Bad Gateway", String::new(), "<html>".to_owned())).await;
    let master = master(&node.url, |_| value()).await;
    let error = connect(&master).await.get("k").await.unwrap_err();
    assert!(matches!(&error, Error::UnexpectedReply(why) if why.contains("502")), "{error}");
}
