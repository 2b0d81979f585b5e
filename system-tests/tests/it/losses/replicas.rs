//! Copies that lose what they have acknowledged.

use std::time::Duration;

use crate::support::{BrokenDisk, Cluster, PATIENCE, Setup, eventually, led_by};

/// How long the cluster has to notice what a copy has lost before the other one dies.
const NOTICE: Duration = Duration::from_secs(3);
/// Longer than a takeover.
const TAKEOVER: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_disk_lost_writes_that_were_answered_from_memory_serves_nothing_older() {
    let master = &[("PARTITIONS", "8")];
    let mut cluster = Cluster::start(Setup { nodes: 2, master, ..Setup::default() }).await;
    cluster.settled().await;
    let keys = cluster.keys_in(8, led_by("node-1")).await;
    for key in &keys {
        cluster.put(key, "", "old").await;
    }
    cluster.settled().await;
    let Some(broken) = BrokenDisk::writes_fail(cluster.nodes[1].pid()) else { return };
    for key in &keys {
        cluster.put(key, "?durability=memory", "new").await;
    }
    let in_sync = async || {
        let ring = cluster.ring().await;
        ring.partitions.iter().filter(|partition| partition.in_sync.iter().any(|node| node == "node-2")).count()
    };
    let noticed = tokio::time::Instant::now() + NOTICE;
    while in_sync().await > 0 && tokio::time::Instant::now() < noticed {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(broken);
    cluster.nodes[0].kill();

    // Nobody need answer, but who does must have the new value.
    let end = tokio::time::Instant::now() + TAKEOVER;
    let mut older = Vec::new();
    while older.is_empty() && tokio::time::Instant::now() < end {
        for key in &keys {
            let reply = cluster.client.get_key(cluster.node_url(1), key).await;
            if (reply.status == 200 && reply.text() != "new") || reply.status == 404 {
                older.push((key, reply.status, reply.text()));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(older.is_empty(), "{} of {} are older than what was answered: {older:?}", older.len(), keys.len());
    cluster.restart_node(0).await;
    for key in &keys {
        eventually(key, PATIENCE, async || {
            let reply = cluster.client.get_key(cluster.url(), key).await;
            match (reply.status, reply.text().as_str()) {
                (200, "new") => Ok(()),
                (503 | 504, problem) => Err(problem.to_owned()),
                _ => panic!("{key}: {reply:?}"),
            }
        })
        .await;
    }
}
