use std::time::Duration;

use cairn_client::{Cache, ErrorCode};

use crate::{
    NOBODY, connect, connect_for,
    fake::{Answer, Fake, problem},
    master, value,
};

#[tokio::test]
async fn eventual_reads_are_spread_over_all_that_are_in_sync_and_strong_ones_are_not() {
    let (primary, replica) = (Fake::start(|_| value()).await, Fake::start(|_| value()).await);
    let master = master(&[&primary.url, &replica.url], |_| Answer::Close).await;
    let cache = connect(&master).await;
    for _ in 0..20 {
        cache.get("k").await.unwrap();
    }
    assert_eq!((primary.seen().len(), replica.seen().len()), (20, 0));
    for key in ["k", "."] {
        for _ in 0..40 {
            cache.get(key).eventual().await.unwrap();
        }
    }
    assert_eq!(primary.seen().len() + replica.seen().len(), 100);
    // Each of 80 falls on either side: that one has fewer than ten has a chance of less than 1 in 10^12.
    assert!(replica.seen().len() >= 10 && primary.seen().len() >= 30, "{}", replica.seen().len());
    let (first, last) = (&replica.seen()[0], replica.seen().pop().unwrap());
    assert_eq!(first, "GET /keys/k?bucket=default&consistency=eventual");
    assert_eq!(last, "GET /keys/%2E?bucket=default&consistency=eventual");
}

#[tokio::test]
async fn an_eventual_read_needs_neither_the_primary_nor_a_master() {
    let replica = Fake::start(|_| value()).await;
    let master = master(&[NOBODY, &replica.url], |_| Answer::Close).await;
    let cache = connect(&master).await;
    drop(master);
    for _ in 0..10 {
        assert!(cache.get("k").eventual().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_replica_that_refuses_is_left_for_the_others() {
    let primary = Fake::start(|_| value()).await;
    let replica = Fake::start(|_| problem(ErrorCode::PartitionOffline)).await;
    let master = master(&[&primary.url, &replica.url], |_| problem(ErrorCode::NoNodes)).await;
    let cache = connect_for(&master, Duration::from_secs(20)).await;
    for _ in 0..10 {
        assert!(cache.get("k").eventual().await.unwrap().is_some());
    }
    assert_eq!(primary.seen().len(), 10);
}

#[tokio::test]
async fn operations_belong_to_the_trace_that_the_caller_names() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let node = Fake::start(|_| value()).await;
    let master = master(&[&node.url], |_| Answer::Close).await;
    for (trace_context, sent) in
        [((|| Some(TRACE.to_owned())) as fn() -> _, vec![TRACE; 2]), (|| Some("no trace".to_owned()), vec![TRACE; 2])]
    {
        let cache = Cache::builder().url(&master.url).trace_context(trace_context).connect().await.unwrap();
        for key in ["k", "."] {
            cache.get(key).await.unwrap();
        }
        assert_eq!(node.header("traceparent"), sent);
    }
}
