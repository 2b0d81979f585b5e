//! What the gateway does when a node fails: seen by a client of the master, with nodes that misbehave as told.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

mod batch;
mod master;
mod node;

use std::time::{Duration, Instant};

use cairn_api_spec::{ErrorCode, cluster::PartitionChange, operation::Tier, peer::Execute};
use reqwest::StatusCode;

use crate::{
    master::{Master, code},
    node::{Answer, FakeNode, LARGE, failed, found, found_large, stored},
};

const SHORT: &str = "--link-deadline=600ms";

fn answer(execute: &Execute) -> Answer {
    if execute.action < 2 { found(Tier::Memory) } else { stored() }
}

/// Answers so for a number of times, and then properly.
fn at_first(times: usize, mut first: impl FnMut() -> Answer + Send + 'static) -> impl FnMut(&Execute) -> Answer + Send {
    let mut left = times;
    move |execute| match left {
        0 => answer(execute),
        _ => {
            left -= 1;
            first()
        }
    }
}

async fn until(what: impl Fn() -> bool) {
    let reach = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reach).await.expect("it does not happen");
}

#[tokio::test]
async fn a_request_waits_for_a_node_that_is_started_again() {
    let mut node = FakeNode::start("a", answer);
    let master = Master::with(&[&node], &[]).await;
    assert_eq!(master.get("").status().await, StatusCode::OK);
    node.kill().await;
    let (put, get) = (master.put("1"), master.get(""));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!put.is_answered() && !get.is_answered());
    node.run();
    assert_eq!((put.status().await, get.status().await), (StatusCode::CREATED, StatusCode::OK));
}

#[tokio::test]
async fn a_request_waits_for_the_first_node() {
    let master = Master::start(&["--replication-factor=1"]).await;
    let waiting = [master.put("1"), master.put(vec![0; LARGE]), master.get(""), master.list()];
    tokio::time::sleep(Duration::from_millis(200)).await;
    let node = FakeNode::start("a", answer);
    master.join(&node).await;
    for request in waiting {
        let reply = request.reply().await;
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }
}

#[tokio::test]
async fn what_a_node_refuses_for_a_moment_is_asked_again_and_what_it_refuses_for_good_is_not() {
    for refused in [ErrorCode::NotOwner, ErrorCode::PartitionOffline, ErrorCode::ShuttingDown, ErrorCode::NoNodes] {
        let node = FakeNode::start("a", at_first(3, move || failed(refused)));
        let master = Master::with(&[&node], &[]).await;
        assert_eq!(master.put("1").status().await, StatusCode::CREATED, "{refused:?}");
        assert_eq!(node.seen().len(), 4);
    }
    for refused in [ErrorCode::Overloaded, ErrorCode::BelowMinInSync, ErrorCode::StorageFull, ErrorCode::Internal] {
        let node = FakeNode::start("a", move |_| failed(refused));
        let master = Master::with(&[&node], &[]).await;
        assert_eq!(master.put("1").error().await, (refused.status(), refused.as_str().to_owned()));
        assert_eq!(node.seen().len(), 1);
    }
}

#[tokio::test]
async fn trying_ends_with_the_deadline() {
    let node = FakeNode::start("a", |_| failed(ErrorCode::NotOwner));
    let master = Master::with(&[&node], &[SHORT]).await;
    for write in [true, false] {
        let began = Instant::now();
        let reply = if write { master.put("1") } else { master.get("") }.reply().await;
        assert!(reply.headers().contains_key("Retry-After"));
        assert_eq!(code(reply).await, (503, "partition_offline".to_owned()));
        assert!((Duration::from_millis(450)..Duration::from_secs(10)).contains(&began.elapsed()));
    }
    assert!(node.seen().len() < 20, "a pause of 100 ms between attempts: {}", node.seen().len());
}

#[tokio::test]
async fn a_write_whose_outcome_is_not_known_is_sent_again_only_under_an_idempotency_key() {
    let mut node = FakeNode::start("a", at_first(2, || Answer::Hang));
    let master = Master::with(&[&node], &[]).await;
    let (careless, careful) = (master.put("1"), master.put_once("2"));
    until(|| node.seen().len() == 2).await;
    node.kill().await;
    assert_eq!(careless.error().await, (504, "outcome_unknown".to_owned()));
    node.run();
    assert_eq!(careful.status().await, StatusCode::CREATED);
    let last = &node.seen()[2];
    assert_eq!((&*last.idempotency_key, &*last.value), ("once", &b"2"[..]));
    assert_eq!(node.seen().len(), 3);
}

#[tokio::test]
async fn a_later_refusal_does_not_hide_that_an_earlier_attempt_may_have_been_done() {
    for refusal in [ErrorCode::PartitionOffline, ErrorCode::StorageFull] {
        let mut answers = vec![failed(refusal), failed(ErrorCode::OutcomeUnknown)];
        let node = FakeNode::start("a", move |_| answers.pop().unwrap_or_else(|| failed(refusal)));
        let master = Master::with(&[&node], &[SHORT]).await;
        assert_eq!(master.put_once("1").error().await, (504, "outcome_unknown".to_owned()), "{refusal:?}");
        assert!(node.seen().len() >= 2);
    }
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_sent_again() {
    let mut node = FakeNode::start("a", at_first(1, || Answer::Hang));
    let master = Master::with(&[&node], &[]).await;
    let read = master.get("");
    until(|| node.seen().len() == 1).await;
    node.kill().await;
    node.run();
    assert_eq!(read.text().await, "value");
}

#[tokio::test]
async fn a_request_follows_its_partition_to_another_node() {
    let mut old = FakeNode::start("a", at_first(1, || Answer::Hang));
    let new = FakeNode::start("b", answer);
    let master = Master::with(&[&old, &new], &[]).await;
    let write = master.put_once("1");
    until(|| old.seen().len() == 1).await;
    old.kill().await;
    let ring = master.ring().await;
    master.change(&ring, PartitionChange::StepDown, "b").await;
    assert_eq!(write.status().await, StatusCode::CREATED);
    let (first, second) = (&old.seen()[0], &new.seen()[0]);
    assert_eq!(first.idempotency_key, second.idempotency_key);
    assert_eq!((first.epoch, second.epoch), (ring.partitions[0].epoch, ring.partitions[0].epoch + 1));
}

#[tokio::test]
async fn reads_that_may_be_stale_are_spread_over_all_in_sync_nodes() {
    let primary = FakeNode::start("a", answer);
    let replica = FakeNode::start("b", |_| found(Tier::Replica));
    let master = Master::with(&[&primary, &replica], &[]).await;
    let mut stale = 0;
    for _ in 0..40 {
        let reply = master.get("?consistency=eventual").reply().await;
        stale += usize::from(reply.headers()["Cache-Status"].to_str().unwrap().ends_with("detail=replica"));
    }
    // That either side has fewer than three has a chance of less than 1 in 10^8.
    assert_eq!((primary.seen().len(), replica.seen().len()), (40 - stale, stale));
    assert!((3..=37).contains(&stale), "{stale}");
    assert!(primary.seen().iter().chain(&replica.seen()).all(|read| read.eventual));
    for _ in 0..10 {
        assert_eq!(master.get("").status().await, StatusCode::OK);
    }
    assert_eq!(replica.seen().len(), stale);
    assert!(!primary.seen().last().unwrap().eventual);
}

#[tokio::test]
async fn a_read_that_may_be_stale_needs_one_of_the_nodes() {
    let mut primary = FakeNode::start("a", answer);
    let mut replica = FakeNode::start("b", |_| found(Tier::Replica));
    let master = Master::with(&[&primary, &replica], &[]).await;
    let began = Instant::now();
    replica.kill().await;
    for _ in 0..10 {
        assert_eq!(master.get("?consistency=eventual").text().await, "value");
    }
    replica.run();
    primary.kill().await;
    for _ in 0..10 {
        assert_eq!(master.get("?consistency=eventual").text().await, "value");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn large_values_are_asked_for_and_named_as_small_ones_are() {
    let node = FakeNode::start("a", |_| found_large());
    let master = Master::with(&[&node], &[]).await;
    let reply = master.get("?consistency=eventual").reply().await;
    assert!(reply.headers()["Cache-Status"].to_str().unwrap().ends_with("detail=replica"));
    assert_eq!(reply.bytes().await.unwrap().len(), LARGE);
    assert!(node.http_seen()[0].starts_with("get /keys/k?bucket=default&consistency=eventual "));
    assert_eq!(master.put_once(vec![0; LARGE]).status().await, StatusCode::CREATED);
    assert!(node.http_seen()[1].contains("idempotency-key: once"), "{}", node.http_seen()[1]);
}

#[tokio::test]
async fn a_large_value_waits_as_long_as_nothing_of_it_was_sent() {
    let mut node = FakeNode::start("a", answer);
    let master = Master::with(&[&node], &[]).await;
    node.kill().await;
    let put = master.put(vec![0; LARGE]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!put.is_answered());
    node.run();
    assert_eq!(put.status().await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_node_that_takes_a_large_value_or_a_question_for_one_and_is_silent_is_not_waited_for_long() {
    let node = FakeNode::start("a", |_| found_large());
    let master = Master::with(&[&node], &[]).await;
    node.hang_http();
    let (put, get) = (master.put(vec![0; LARGE]), master.get(""));
    let answered = tokio::time::timeout(Duration::from_secs(30), async { (put.error().await, get.error().await) });
    let (put, get) = answered.await.expect("a silent node is given up");
    assert_eq!((put.0, put.1.as_str()), (504, "outcome_unknown"));
    assert_eq!((get.0, get.1.as_str()), (503, "partition_offline"));
}
