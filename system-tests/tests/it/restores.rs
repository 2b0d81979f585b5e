//! What it takes to begin with a bucket, empty or full.

use std::time::Instant;

use crate::support::{Cluster, Setup};

/// How often the bucket was asked: GET, LIST, HEAD, PUT.
fn requests(cluster: &Cluster) -> [u64; 4] {
    ["GetObject", "ListObjectsV2", "HeadObject", "PutObject"].map(|name| cluster.store().requests(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_asks_its_empty_bucket_for_little() {
    let start = Instant::now();
    let cluster = Cluster::start(Setup { object_store: true, ..Setup::default() }).await;
    let asked = requests(&cluster);
    eprintln!("256 partitions begin in {:.1} s; GET, LIST, HEAD, PUT: {asked:?}", start.elapsed().as_secs_f64());
    let [gets, lists, heads, puts] = asked;
    // Each of three nodes may hear of its partitions in several pieces, and of some in a later epoch than the first.
    assert!(lists <= 45 && puts < 64 && gets + heads == 0, "{asked:?}");
    let reply = cluster.client.put_key(cluster.url(), "key", "?durability=object", "value").await;
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_are_restored_by_few_requests() {
    let (master, node) = (&[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "1")], &[("UPLOAD_LINGER", "2s")]);
    let setup = Setup { nodes: 1, object_store: true, master, node, ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    let entries: Vec<_> = (0..20_000).map(|i| (format!("key {i}"), format!("value {i}"))).collect();
    cluster.import(&entries).await;
    cluster.uploaded().await;
    cluster.nodes[0].kill();
    let before = requests(&cluster);
    cluster.wipe_node(0);
    let start = Instant::now();
    cluster.restart_node(0).await;
    cluster.ready().await;
    let took = start.elapsed();
    let after = requests(&cluster);
    let asked: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    eprintln!("20000 keys restored in {:.1} s; GET, LIST, HEAD, PUT: {asked:?}", took.as_secs_f64());
    assert!(asked.iter().sum::<u64>() < 400, "{asked:?}");
    cluster.read_back(&entries[..200]).await;
}
