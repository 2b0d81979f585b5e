//! Copies that do not acknowledge, and primaries that do not answer.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::support::{BrokenDisk, Cluster, PATIENCE, Setup, eventually, led_by};

/// More than a node lets wait for a copy (64 MiB), but not before that could have been noticed.
const WRITES: u32 = 150;
const VALUE: usize = 1_000_000;
const PACE: Duration = Duration::from_millis(160);
/// What `durability=object` may take through the master, whose patience with a node is 5 s; with room for a busy
/// machine.
const ANSWER: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_quorum_whose_disk_hangs_costs_no_write_its_answer_and_is_taken_out() {
    let master =
        &[("PARTITIONS", "16"), ("REPLICATION_FACTOR", "3"), ("REPLICATION_STRATEGY", "quorum"), ("WRITE_QUORUM", "2")];
    let cluster = Cluster::start(Setup { master, ..Setup::default() }).await;
    cluster.settled().await;
    let keys = cluster.keys_in(10, |partition| !led_by("node-3")(partition)).await;
    let value = bytes::Bytes::from(vec![b'v'; VALUE]);
    let Some(_hung) = BrokenDisk::writes_hang(cluster.nodes[2].pid()) else { return };
    let began = tokio::time::Instant::now();
    let put = async |number: u32| {
        tokio::time::sleep_until(began + PACE * number).await;
        let key = &keys[number as usize % keys.len()];
        let reply = cluster.client.put_key(cluster.url(), key, "", value.clone()).await;
        (!reply.is_stored()).then(|| format!("{key}: {} {}", reply.status, reply.text()))
    };
    let refused: Vec<_> =
        stream::iter(0..WRITES).map(put).buffer_unordered(8).filter_map(std::future::ready).collect().await;
    assert!(refused.is_empty(), "{} of {WRITES} writes were not stored, such as {}", refused.len(), refused[0]);
    eventually("the copy is taken out", PATIENCE, async || {
        let ring = cluster.ring().await;
        let has = |node: &String| node == "node-3";
        match ring.partitions.iter().filter(|partition| partition.in_sync.iter().any(has)).count() {
            0 => Ok(()),
            left => Err(format!("it is a copy of {left} partitions")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_durability_object_to_a_frozen_primary_is_answered_soon() {
    let master = &[("PARTITIONS", "8")];
    let cluster = Cluster::start(Setup { nodes: 2, object_store: true, master, ..Setup::default() }).await;
    cluster.settled().await;
    let keys = cluster.keys_in(1, led_by("node-1")).await;
    cluster.nodes[0].freeze();
    let written = cluster.client.put_key(cluster.url(), &keys[0], "?durability=object", "value");
    let reply = tokio::time::timeout(ANSWER, written).await;
    let reply = reply.unwrap_or_else(|_| panic!("there was no answer within {ANSWER:?}"));
    assert!(reply.is_stored() || matches!(reply.status, 503 | 504), "{reply:?}");
}
