use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_client::{Error, ErrorCode, Version};

use crate::{
    NOBODY, connect,
    fake::{Answer, Fake, problem, ring},
    master, stored, value,
};

#[tokio::test]
async fn after_not_owner_the_map_is_fetched_and_the_new_owner_asked() {
    let new = Fake::start(|_| value()).await;
    let old = Fake::start(|_| problem(ErrorCode::NotOwner)).await;
    let (first, then) = (ring(1, &[&old.url]), ring(2, &[&new.url]));
    let asked = AtomicBool::new(false);
    let master = Fake::start(move |_| match asked.swap(true, Ordering::Relaxed) {
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
    let node = Fake::start(|_| problem(ErrorCode::NotOwner)).await;
    let master = master(&[&node.url], |_| value()).await;
    assert!(connect(&master).await.get("k").await.unwrap().is_some());
    assert_eq!(node.seen().len(), 1);
    assert_eq!(master.seen(), ["GET /ring", "GET /ring", "GET /keys/k?bucket=default"]);
}

#[tokio::test]
async fn the_master_serves_what_an_unreachable_owner_cannot_reads_and_writes() {
    let master = master(&[NOBODY], |request| if request.starts_with("GET") { value() } else { stored() }).await;
    let cache = connect(&master).await;
    for key in ["k", ".."] {
        assert_eq!(cache.get(key).await.unwrap().unwrap().version, Version(7), "{key}");
        assert!(!cache.put(key, "x").await.unwrap().created, "{key}");
        assert_eq!(cache.delete(key).await.unwrap(), Some(Version(8)), "{key}");
    }
    assert_eq!(master.operations()[3], "GET /keys/%2E%2E?bucket=default");
}

#[tokio::test]
async fn without_a_master_a_client_that_has_the_map_goes_on_with_the_nodes() {
    let failing = AtomicUsize::new(0);
    let node = Fake::start(move |request| match failing.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Answer::Close,
        1 => problem(ErrorCode::ShuttingDown),
        _ if request.starts_with("GET") => value(),
        _ => stored(),
    })
    .await;
    let master = master(&[&node.url], |_| Answer::Close).await;
    let cache = connect(&master).await;
    drop(master);
    for key in ["k", "."] {
        cache.get(key).await.unwrap().unwrap();
        cache.put(key, "x").await.unwrap();
        cache.delete(key).await.unwrap().unwrap();
    }
    assert_eq!(node.seen().len(), 18);
}

#[tokio::test]
async fn after_a_broken_connection_the_map_is_fetched_in_the_background() {
    let new = Fake::start(|_| value()).await;
    let (first, then) = (ring(1, &[NOBODY]), ring(2, &[&new.url]));
    let asked = AtomicBool::new(false);
    // It forwards nothing, and the question that waits for the next map stays without an answer.
    let master = Fake::start(move |request| match request.starts_with("GET /ring ") {
        false => problem(ErrorCode::NoNodes),
        true if asked.swap(true, Ordering::Relaxed) => then.clone(),
        true => first.clone(),
    })
    .await;
    assert!(connect(&master).await.get("k").await.unwrap().is_some());
    assert_eq!(new.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_outside_the_contract_is_told_and_not_believed() {
    let node = Fake::start(|_| Answer::Reply("418 I'm a teapot", String::new(), "<html>".to_owned())).await;
    let master = master(&[&node.url], |_| value()).await;
    let error = connect(&master).await.get("k").await.unwrap_err();
    assert!(matches!(&error, Error::UnexpectedReply(why) if why.contains("418")), "{error}");
}
