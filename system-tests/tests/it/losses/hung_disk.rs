//! Disks that do not answer.

use std::time::Duration;

use futures_util::future::join_all;

use crate::support::{BrokenDisk, Cluster, Setup, eventually, led_by};

/// How long others may take to notice and to take over; a guard with room for a busy machine.
const TAKEOVER: Duration = Duration::from_secs(20);
/// How long an answer may take when the disk does not answer.
const ANSWER: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_a_node_whose_disk_hangs_move_to_others_and_writes_go_on() {
    let master = &[("PARTITIONS", "32")];
    let cluster = Cluster::start(Setup { master, ..Setup::default() }).await;
    cluster.settled().await;
    let keys = cluster.keys_in(20, led_by("node-1")).await;
    let Some(_hung) = BrokenDisk::writes_hang(cluster.nodes[0].pid()) else { return };
    join_all(keys.iter().map(async |key| {
        eventually(key, TAKEOVER, async || {
            let reply = cluster.client.put_key(cluster.url(), key, "", "value").await;
            if reply.is_stored() { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }))
    .await;
    eventually("others lead its partitions", TAKEOVER, async || {
        let ring = cluster.ring().await;
        match ring.partitions.iter().filter(|partition| led_by("node-1")(partition)).count() {
            0 => Ok(()),
            led => Err(format!("it leads {led}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hit_a_disk_that_hangs_are_answered() {
    let master = &[("PARTITIONS", "8"), ("REPLICATION_FACTOR", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 1, master, ..Setup::default() }).await;
    let entries: Vec<_> = (0..2_000).map(|number| (format!("key {number}"), format!("{number:01000}"))).collect();
    cluster.import(&entries).await;
    // Nothing is in memory after this.
    cluster.nodes[0].terminate().await;
    cluster.restart_node(0).await;
    cluster.ready().await;
    let Some(_hung) = BrokenDisk::reads_hang(cluster.nodes[0].pid()) else { return };
    let asked = join_all(entries.iter().step_by(100).flat_map(|(key, _)| {
        [cluster.url(), cluster.node_url(0)].map(|server| {
            let (client, key) = (cluster.client.clone(), key.clone());
            async move { tokio::time::timeout(ANSWER, client.get_key(server, &key)).await.map(|reply| reply.status) }
        })
    }));
    let answers = asked.await;
    let wrong: Vec<_> = answers.iter().filter(|answer| **answer != Ok(503)).collect();
    assert!(wrong.is_empty(), "{} of {} are not 503: {wrong:?}", wrong.len(), answers.len());
}
