//! The slow work of a node: what is stuck in one place goes on in all others, and what is not needed goes.

use cairn_api_spec::cluster::Partition;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{Cluster, PATIENCE, Setup, eventually, led_by};

/// More keys than a node expires at a time.
const STUCK: usize = 300;

/// The partitions of `leader` that have a copy on `other`.
fn shared(leader: &'static str, other: &'static str) -> impl Fn(&Partition) -> bool {
    move |partition| led_by(leader)(partition) && partition.in_sync.iter().any(|node| node == other)
}

fn entries(keys: Vec<String>, bytes: usize) -> Vec<(String, String)> {
    keys.into_iter().map(|key| (key, "v".repeat(bytes))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_expire_and_the_disk_keeps_its_budget_while_one_partition_takes_no_writes() {
    const BUDGET: f64 = (1 << 20) as f64;
    let master = &[("PARTITIONS", "24"), ("MIN_IN_SYNC", "2"), ("REPLACE_AFTER", "10m")];
    let node = &[("DISK_MAX_BYTES", "1MiB")];
    let mut cluster = Cluster::start(Setup { master, node, ..Setup::default() }).await;
    cluster.settled().await;
    let stuck = cluster.keys_in(STUCK, shared("node-1", "node-3")).await;
    let free = cluster.keys_in(2_100, shared("node-1", "node-2")).await;
    assert_eq!((stuck.len(), free.len()), (STUCK, 2_100));
    for key in &stuck {
        cluster.put(key, "?ttl=3s", "value").await;
    }
    cluster.nodes[2].kill();
    eventually("its partitions take no writes", PATIENCE, async || {
        let reply = cluster.client.put_key(cluster.node_url(0), &stuck[0], "?ttl=1s", "value").await;
        if reply.is_stored() { Err("stored".to_owned()) } else { Ok(()) }
    })
    .await;
    eventually("their time has come", PATIENCE, async || {
        let reply = cluster.client.get_key(cluster.node_url(0), &stuck[STUCK - 1]).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let expired = cluster.node_stats(0).await.unwrap().expirations;
    let (expiring, staying) = free.split_at(100);
    for key in expiring {
        cluster.put(key, "?ttl=1s", "value").await;
    }
    eventually("keys of other partitions expire", PATIENCE / 2, async || {
        let now = cluster.node_stats(0).await?.expirations;
        if now >= expired + 100 { Ok(()) } else { Err(format!("{} of 100", now - expired)) }
    })
    .await;
    cluster.import(&entries(staying.to_vec(), 1_000)).await;
    eventually("the disk is within its budget", PATIENCE / 2, async || {
        let used = cluster.metric(0, "cairn_disk_used_bytes").await;
        if used <= BUDGET { Ok(()) } else { Err(format!("{used} bytes are in use")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_leave_the_disk_give_back_their_room() {
    const KEYS: usize = 1_500;
    const BUDGET: f64 = (1 << 20) as f64;
    let (master, node) = (&[("PARTITIONS", "8")], &[("DISK_MAX_BYTES", "1MiB"), ("LRU_SIZE", "16")]);
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, master, node, ..Setup::default() }).await;
    // Each of these and its row take a page of the file.
    let entries = entries((0..KEYS).map(|number| format!("key {number}")).collect(), 3_000);
    cluster.import(&entries).await;
    cluster.uploaded().await;
    eventually("the disk is within its budget", PATIENCE / 2, async || {
        let used = cluster.metric(0, "cairn_disk_used_bytes").await;
        let left = cluster.node_stats(0).await?.entries_by_tier.disk;
        if used <= BUDGET { Ok(()) } else { Err(format!("{used} bytes are in use, for {left} values")) }
    })
    .await;
    cluster.read_back(&entries[..50]).await;
}

/// How many rows a node's disk has of a partition.
async fn rows(cluster: &Cluster, index: usize, partition: u32) -> i64 {
    let file = cluster.nodes[index].directory().join("data/data.sqlite");
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    let count = sqlx::query_scalar("SELECT count(*) FROM entries WHERE partition = ?").bind(partition);
    let count = count.fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_restarted_soon_after_it_gave_partitions_away_keeps_nothing_of_them() {
    let master = &[("PARTITIONS", "16"), ("REPLICATION_FACTOR", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 1, master, ..Setup::default() }).await;
    let entries: Vec<_> = (0..500).map(|number| (format!("key {number}"), "value".to_owned())).collect();
    cluster.import(&entries).await;
    cluster.add_node().await;
    cluster.settled().await;
    cluster.nodes[0].kill();
    cluster.restart_node(0).await;
    cluster.settled().await;
    let ring = cluster.ring().await;
    let given: Vec<u32> = ring.partitions.iter().filter(|p| led_by("node-2")(p)).map(|p| p.id).collect();
    assert!(!given.is_empty());
    // A node keeps them for a minute, since they may come back.
    eventually("they are gone from its disk", PATIENCE * 3, async || {
        for partition in &given {
            let left = rows(&cluster, 0, *partition).await;
            if left > 0 {
                return Err(format!("{left} rows of partition {partition} are there"));
            }
        }
        Ok(())
    })
    .await;
    cluster.read_back(&entries).await;
}
