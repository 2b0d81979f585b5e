//! Where the operations of a batch go, and which of them are sent again.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn_client::{BatchOperation, BatchReply, Condition, Error, ErrorCode, Version};
use serde_json::{Value, json};

use crate::{
    NOBODY, connect, connect_for,
    fake::{Answer, Fake, json as document, problem, ring, ring_of},
    master,
};

/// A result for each operation of a request, by its key.
fn results(body: &str, result: impl Fn(&str) -> Value) -> Answer {
    let body: Value = serde_json::from_str(body).unwrap();
    let results: Vec<_> =
        body["operations"].as_array().unwrap().iter().map(|o| result(o["key"].as_str().unwrap())).collect();
    document(&json!({"results": results}))
}

fn stored(key: &str) -> Value {
    json!({"status": 201, "key": key, "version": Version(8)})
}

fn refused(key: &str, code: ErrorCode) -> Value {
    json!({"status": code.status(), "key": key, "problem": {"code": code, "detail": "as told"}})
}

fn keys(document: &Value) -> Vec<&str> {
    document["operations"].as_array().unwrap().iter().map(|o| o["key"].as_str().unwrap()).collect()
}

fn puts(count: usize) -> Vec<BatchOperation> {
    (0..count).map(|i| BatchOperation::put(format!("k{i}"), "1")).collect()
}

#[tokio::test]
async fn each_owner_gets_its_operations_in_one_request_and_the_results_stand_in_their_places() {
    let nodes = [
        Fake::reading(|_, body| {
            results(body, |key| json!({"status": 200, "key": key, "version": Version(8), "value": format!("n0 {key}")}))
        })
        .await,
        Fake::reading(|_, body| {
            results(body, |key| json!({"status": 200, "key": key, "version": Version(9), "value_base64": "/w=="}))
        })
        .await,
    ];
    let map = ring_of(1, &[&nodes[0].url, &nodes[1].url]);
    let master = Fake::start(move |_| map.clone()).await;
    let cache = connect(&master).await;
    let found = cache.batch((0..50).map(|i| BatchOperation::get(format!("k{i}")))).await;
    let documents: Vec<_> = nodes.iter().map(Fake::documents).collect();
    assert_eq!((documents[0].len(), documents[1].len()), (1, 1));
    assert_eq!(nodes[0].operations(), ["POST /batch"]);
    let (first, second) = (keys(&documents[0][0]), keys(&documents[1][0]));
    assert_eq!((first.len() + second.len(), first.is_empty(), second.is_empty()), (50, false, false));
    for (i, result) in found.into_iter().enumerate() {
        let key = format!("k{i}");
        let Ok(BatchReply::Found(Some(value))) = result else { panic!("{result:?}") };
        let is_first = first.contains(&key.as_str());
        let expected = if is_first { format!("n0 {key}").into_bytes() } else { vec![0xff] };
        assert_eq!((value.bytes.to_vec(), value.version), (expected, Version(if is_first { 8 } else { 9 })), "{key}");
    }
    assert!(master.operations().is_empty());
}

#[tokio::test]
async fn every_operation_says_all_that_it_would_say_by_itself() {
    let node = Fake::reading(|_, body| results(body, stored)).await;
    let master = master(&[&node.url], |_| problem(ErrorCode::Internal)).await;
    let cache = connect(&master).await.bucket("b").unwrap();
    let operations = [
        BatchOperation::put("text", "\"1\"").ttl(Duration::from_millis(250)).content_type("text/x"),
        BatchOperation::put("bytes", vec![0xff]).condition(Condition::Absent),
        BatchOperation::delete("d")
            .durability(cairn_client::Durability::Fsync)
            .condition(Condition::Matches(Version(7))),
        BatchOperation::increment("n", -3),
        BatchOperation::get("g"),
    ];
    cache.batch(operations).await;
    let mut documents = node.documents();
    let sent = documents[0]["operations"].as_array_mut().unwrap();
    let names: Vec<String> = sent
        .iter_mut()
        .filter_map(|operation| operation.as_object_mut().unwrap().remove("idempotency_key"))
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.iter().map(|name| name.split(':').nth(1).unwrap()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(
        sent[..],
        [
            json!({"op": "put", "bucket": "b", "key": "text", "value": "\"1\"", "ttl": "250ms", "content_type": "text/x"}),
            json!({"op": "put", "bucket": "b", "key": "bytes", "value_base64": "/w==", "content_type": "", "if_none_match": "*"}),
            json!({"op": "delete", "bucket": "b", "key": "d", "durability": "fsync", "if_match": "\"7\""}),
            json!({"op": "increment", "bucket": "b", "key": "n", "delta": -3}),
            json!({"op": "get", "bucket": "b", "key": "g"}),
        ]
    );
}

#[tokio::test]
async fn only_what_failed_for_a_moment_is_sent_again_and_under_the_same_name() {
    let node = Fake::reading(|_, body| {
        results(body, |key| match key {
            "k1" => refused(key, ErrorCode::NotOwner),
            "k2" => refused(key, ErrorCode::StorageFull),
            _ => stored(key),
        })
    })
    .await;
    let map = ring(1, &[&node.url]);
    let master = Fake::reading(move |line, body| match line.starts_with("GET /ring") {
        true => map.clone(),
        false => results(body, stored),
    })
    .await;
    let answers = connect(&master).await.batch(puts(4)).await;
    assert!(answers.iter().enumerate().all(|(i, answer)| answer.is_ok() == (i != 2)), "{answers:?}");
    assert_eq!(answers[2].as_ref().unwrap_err().code(), Some(ErrorCode::StorageFull));
    let (first, second) = (&node.documents()[0], &master.documents()[0]);
    assert_eq!((keys(first), keys(second)), (vec!["k0", "k1", "k2", "k3"], vec!["k1"]));
    assert_eq!(first["operations"][1]["idempotency_key"], second["operations"][0]["idempotency_key"]);
}

#[tokio::test]
async fn a_batch_whose_owner_is_gone_goes_through_the_master() {
    for owner in [NOBODY.to_owned(), Fake::start(|_| Answer::Close).await.url.clone()] {
        let map = ring(1, &[&owner]);
        let master = Fake::reading(move |line, body| match line.starts_with("GET /ring") {
            true => map.clone(),
            false => results(body, stored),
        })
        .await;
        let answers = connect(&master).await.batch(puts(3)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(master.operations(), ["POST /batch"]);
    }
}

#[tokio::test]
async fn when_the_time_is_over_a_write_may_have_happened_and_a_read_has_not() {
    let node = Fake::start(|_| Answer::Close).await;
    let master = master(&[&node.url], |_| Answer::Close).await;
    let cache = connect_for(&master, Duration::from_secs(2)).await;
    let answers = cache.batch([BatchOperation::put("k", "1"), BatchOperation::get("k")]).await;
    assert!(matches!(answers[0], Err(Error::OutcomeUnknown(_))), "{answers:?}");
    assert!(matches!(answers[1], Err(Error::Unreachable(_))), "{answers:?}");
}

#[tokio::test]
async fn what_was_sent_once_may_have_happened_also_when_the_time_is_over_before_it_is_sent_again() {
    let nodes = [Fake::start(|_| Answer::Close).await, Fake::start(|_| Answer::Close).await];
    let map = ring_of(1, &[&nodes[0].url, &nodes[1].url]);
    // One request cannot take all that the two nodes got.
    let master = Fake::start(move |line| match line.starts_with("GET /ring") {
        true => map.clone(),
        false => Answer::Hang,
    })
    .await;
    let answers = connect_for(&master, Duration::from_secs(1)).await.batch(puts(1_500)).await;
    assert_eq!(master.operations(), ["POST /batch"]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::OutcomeUnknown(_)))), "{:?}", answers.last());
}

#[tokio::test]
async fn behind_an_operation_that_is_given_up_none_on_the_same_key_is_sent_again() {
    let asked = AtomicUsize::new(0);
    let node = Fake::reading(move |_, body| {
        results(body, |key| {
            let retry_after = if asked.fetch_add(1, Ordering::Relaxed) == 0 { 60 } else { 0 };
            let problem = json!({"code": ErrorCode::Overloaded, "detail": "as told", "retry_after": retry_after});
            json!({"status": 503, "key": key, "problem": problem})
        })
    })
    .await;
    let map = ring(1, &[&node.url]);
    let master = Fake::reading(move |line, body| match line.starts_with("GET /ring") {
        true => map.clone(),
        false => results(body, stored),
    })
    .await;
    let puts = ["k", "k", "other"].map(|key| BatchOperation::put(key, "1"));
    let answers = connect(&master).await.batch(puts).await;
    assert_eq!(keys(&master.documents()[0]), ["other"]);
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().and_then(Error::code)).collect();
    assert_eq!(codes, [Some(ErrorCode::Overloaded), Some(ErrorCode::Overloaded), None]);
}

#[tokio::test]
async fn more_operations_than_a_request_may_have_go_in_several_and_in_their_order() {
    let sums: Mutex<HashMap<String, i64>> = Mutex::default();
    let node = Fake::reading(move |_, body| {
        results(body, |key| {
            let mut sums = sums.lock().unwrap();
            let sum = sums.entry(key.to_owned()).or_default();
            *sum += 1;
            json!({"status": 200, "key": key, "version": Version(8), "value": sum.to_string()})
        })
    })
    .await;
    let master = master(&[&node.url], |_| problem(ErrorCode::Internal)).await;
    let answers = connect(&master).await.batch((0..2_500).map(|_| BatchOperation::increment("n", 1))).await;
    for (i, answer) in answers.into_iter().enumerate() {
        let Ok(BatchReply::Counted(counted)) = answer else { panic!("{answer:?}") };
        assert_eq!(usize::try_from(counted.value).unwrap(), i + 1);
    }
    let lengths: Vec<_> = node.documents().iter().map(|document| keys(document).len()).collect();
    assert_eq!(lengths, [1_000, 1_000, 500]);
}

#[tokio::test]
async fn while_a_request_is_to_be_sent_again_none_behind_it_is_sent() {
    let asked = AtomicUsize::new(0);
    let node = Fake::reading(move |_, body| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => problem(ErrorCode::Overloaded),
        _ => results(body, stored),
    })
    .await;
    let map = ring(1, &[&node.url]);
    let master = Fake::reading(move |line, body| match line.starts_with("GET /ring") {
        true => map.clone(),
        false => results(body, stored),
    })
    .await;
    let answers = connect(&master).await.batch(puts(1_500)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(node.operations().len(), 1, "the second request waited for the first");
    assert_eq!(master.operations().len(), 2);
}

#[tokio::test]
async fn what_no_server_would_take_is_refused_before_anything_is_sent() {
    let node = Fake::reading(|_, body| results(body, stored)).await;
    let master = master(&[&node.url], |_| problem(ErrorCode::Internal)).await;
    let operations = [
        BatchOperation::put("long", vec![0; (1 << 20) + 1]),
        BatchOperation::put("", "1"),
        BatchOperation::get("k").condition(Condition::Exists),
        BatchOperation::put("k", "1"),
    ];
    let answers = connect(&master).await.batch(operations).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().and_then(Error::code)).collect();
    let expected = [ErrorCode::ValueTooLarge, ErrorCode::InvalidKey, ErrorCode::InvalidParameter].map(Some);
    assert_eq!((&codes[..3], codes[3]), (&expected[..], None));
    assert_eq!(keys(&node.documents()[0]), ["k"]);
}

#[tokio::test]
async fn an_addition_is_sent_to_the_owner_and_again_under_the_same_key() {
    let node = Fake::start(|_| Answer::Close).await;
    let sum = json!({"key": "n", "value": 7, "version": Version(8)});
    let master = master(&[&node.url], move |_| document(&sum)).await;
    let cache = connect(&master).await;
    for key in ["n", ".."] {
        let counted = cache.increment(key, 3).ttl(Duration::from_secs(1)).await.unwrap();
        assert_eq!((counted.value, counted.version), (7, Version(8)), "{key}");
    }
    assert_eq!(node.operations(), ["POST /counters/n?bucket=default", "POST /counters/%2E%2E?bucket=default"]);
    assert_eq!(node.documents(), [json!({"delta": 3, "ttl": "1000ms"}), json!({"delta": 3, "ttl": "1000ms"})]);
    assert_eq!(node.idempotency_keys(), master.idempotency_keys());
}
