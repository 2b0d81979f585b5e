//! Batches, counters and explanations through real processes, while a node dies.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cairn_api_spec::{
    batch::{Batch, BatchAction, BatchOperation, BatchResult, BatchResults},
    data::{Counter, Explanation, KeyState},
    operation::Tier,
};
use futures_util::future::{join, join_all};
use reqwest::Method;

use crate::support::{Client, Cluster, PATIENCE, Setup, eventually};

const JSON: (&str, &str) = ("content-type", "application/json");
/// Clients, batches of each, and counters that each batch adds to.
const CLIENTS: usize = 4;
const BATCHES: usize = 20;
const COUNTERS: usize = 40;

async fn batch(client: &Client, url: &str, key: &str, operations: Vec<BatchOperation>) -> Vec<BatchResult> {
    let body = Bytes::from(serde_json::to_vec(&Batch { operations }).unwrap());
    let headers = [JSON, ("idempotency-key", key)];
    let reply = client.send(Method::POST, &format!("{url}/batch"), &headers, body).await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json::<BatchResults>().results
}

fn on_counters(action: BatchAction) -> Vec<BatchOperation> {
    (0..COUNTERS).map(|i| BatchOperation::new(action, format!("counter-{i}"))).collect()
}

/// Sends a batch until each of its operations has been done; under its key, none is done twice.
async fn add_all(client: &Client, url: &str, key: &str) {
    loop {
        let results = batch(client, url, key, on_counters(BatchAction::Increment)).await;
        assert_eq!(results.len(), COUNTERS);
        if results.iter().all(|result| result.status == 200) {
            return;
        }
        let mut problems = results.iter().filter_map(|result| result.problem.as_ref());
        assert!(problems.all(|problem| problem.code.may_pass()), "{results:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_addition_of_a_batch_is_lost_or_done_twice_when_a_node_is_killed() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.settled().await;
    let victim = cluster.owner("counter-0").await;
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    let done = AtomicUsize::new(0);
    let add = async |number: usize| {
        for round in 0..BATCHES {
            add_all(&client, &url, &format!("client-{number}-{round}")).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let kill = async {
        let probe = async || match done.load(Ordering::Relaxed) {
            few if few < CLIENTS * BATCHES / 3 => Err(format!("{few} batches are done")),
            _ => Ok(()),
        };
        eventually("a third of the batches are done", PATIENCE, probe).await;
        cluster.nodes[victim].kill();
    };
    join(join_all((0..CLIENTS).map(add)), kill).await;
    assert_eq!(done.load(Ordering::Relaxed), CLIENTS * BATCHES);
    let expected = (CLIENTS * BATCHES).to_string();
    for result in batch(&client, &url, "read", on_counters(BatchAction::Get)).await {
        assert_eq!((result.status, result.value.as_deref()), (200, Some(expected.as_str())), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_its_own_operations_and_refuses_others_and_the_master_does_all() {
    let cluster = Cluster::start(Setup::default()).await;
    let keys: Vec<String> = (0..100).map(|i| format!("key-{i}")).collect();
    let owners = cluster.owners(keys.iter().map(String::as_str)).await;
    let puts = || {
        keys.iter().map(|key| {
            let value = Some(serde_json::value::to_raw_value(key).unwrap());
            BatchOperation { value, ..BatchOperation::new(BatchAction::Put, key.clone()) }
        })
    };
    let results = batch(&cluster.client, cluster.node_url(0), "straight", puts().collect()).await;
    for (result, owner) in results.iter().zip(&owners) {
        assert_eq!(result.status, if *owner == 0 { 201 } else { 421 }, "{result:?}");
    }
    let results = batch(&cluster.client, cluster.url(), "master", puts().collect()).await;
    for (result, owner) in results.iter().zip(&owners) {
        assert_eq!(result.status, if *owner == 0 { 204 } else { 201 }, "{result:?}");
    }
    for key in &keys {
        assert_eq!(cluster.client.get_key(cluster.url(), key).await.text(), *key);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_follows_a_key_to_its_owner_and_to_the_object_store() {
    let cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    cluster.settled().await;
    let counter = format!("{}/counters/visits?durability=object", cluster.url());
    let sent =
        cluster.client.send(Method::POST, &counter, &[JSON], Bytes::from_static(b"{\"delta\": 7}")).await.unwrap();
    let counted: Counter = sent.json();
    assert_eq!((sent.status, counted.value, sent.version()), (200, 7, counted.version.0));

    let told: Explanation = cluster.client.json(&format!("{}/explain/visits", cluster.url())).await;
    let owner = format!("node-{}", cluster.owner("visits").await + 1);
    assert_eq!((told.state, told.version, told.size), (KeyState::Live, counted.version, Some(1)));
    assert_eq!(
        (told.tier, told.uploaded, told.object_version),
        (Some(Tier::Memory), Some(true), Some(counted.version))
    );
    assert_eq!((&told.primary, &told.node, &told.asked.as_ref().unwrap().node), (&owner, &owner, &owner));
    assert_eq!(told.in_sync.len(), 2, "{told:?}");
    for index in 0..3 {
        let reply = cluster.client.get(&format!("{}/explain/visits", cluster.node_url(index))).await;
        assert_eq!(reply.status, if format!("node-{}", index + 1) == owner { 200 } else { 421 });
    }
}
