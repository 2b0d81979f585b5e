//! Nodes that join, leave, and fall silent while clients go on.

use cairn_api_spec::ErrorCode;
use futures_util::future::join_all;

use crate::support::{Cluster, Load, PATIENCE, Setup, eventually, key_url, sends_problem};

fn entries(count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("key {i}"), format!("value {i}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_is_drained_while_every_answered_write_stays_readable() {
    grow_and_shrink(Setup { master: &[("PARTITIONS", "64")], ..Setup::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_and_is_drained_also_when_most_values_are_only_in_the_object_store() {
    let node = &[("LRU_SIZE", "64"), ("DISK_MAX_BYTES", "64KiB")];
    grow_and_shrink(Setup { object_store: true, node, master: &[("PARTITIONS", "64")], ..Setup::default() }).await;
}

async fn grow_and_shrink(setup: Setup) {
    let mut cluster = Cluster::start(setup).await;
    let (client, url, entries) = (cluster.client.clone(), cluster.url().to_owned(), entries(2_000));
    cluster.import(&entries).await;
    let nodes: Vec<String> = (0..3).map(|index| cluster.node_url(index).to_owned()).collect();
    let load = Load::start(&client, &url, &nodes);
    load.progress(100).await;

    let newcomer = cluster.add_node().await;
    cluster.ready().await;
    load.progress(100).await;
    let owners = cluster.owners(entries.iter().map(|(key, _)| key.as_str())).await;
    let share = owners.iter().filter(|owner| **owner == newcomer).count() as f64 * 4.0 / owners.len() as f64;
    assert!((0.75..=1.25).contains(&share), "the newcomer holds {share} of its share");
    cluster.read_back(&entries).await;

    let node_id = cluster.nodes[newcomer].name.clone();
    let removed = client.delete(&format!("{url}/nodes/{node_id}")).await;
    assert_eq!(removed.status, 202, "{removed:?}");
    let gone = eventually("the node leaves the registry", PATIENCE, async || {
        let reply = client.get(&format!("{url}/nodes/{node_id}")).await;
        if reply.status == 404 { Ok(reply) } else { Err(reply.text()) }
    });
    sends_problem(&gone.await, ErrorCode::NodeNotFound);
    let ended = cluster.nodes[newcomer].terminate().await;
    assert!(ended.status.success(), "{}", ended.status);
    cluster.ready().await;
    load.progress(100).await;
    load.finish(&client, &url).await;
    cluster.read_back(&entries).await;
    assert_eq!(cluster.client.list(&url, 1_000).await.iter().filter(|key| key.starts_with("key ")).count(), 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_whose_only_copy_is_on_a_killed_node_are_offline_until_it_is_back_and_never_not_found() {
    // The master tries so long before it says that a partition is offline.
    let master = &[("REPLICATION_FACTOR", "1"), ("LINK_DEADLINE", "200ms")];
    let mut cluster = Cluster::start(Setup { master, ..Setup::default() }).await;
    let (client, url, entries) = (cluster.client.clone(), cluster.url().to_owned(), entries(60));
    cluster.import(&entries).await;
    let owners = cluster.owners(entries.iter().map(|(key, _)| key.as_str())).await;
    cluster.nodes[0].kill();

    // At first the master believes that the node is there, later that it is gone: the answer must be the same.
    for state in ["Active", "Suspect", "Gone"] {
        eventually(state, PATIENCE, async || {
            let seen = format!("{:?}", cluster.node("node-1").await?.state);
            if seen == state { Ok(()) } else { Err(seen) }
        })
        .await;
        join_all(entries.iter().zip(&owners).map(async |((key, value), owner)| {
            let (read, written) = (client.get_key(&url, key).await, client.put_key(&url, key, "", value.clone()).await);
            if *owner == 0 {
                sends_problem(&read, ErrorCode::PartitionOffline);
                sends_problem(&written, ErrorCode::PartitionOffline);
            } else {
                assert_eq!((read.status, read.text(), written.status), (200, value.clone(), 204), "{key}");
            }
        }))
        .await;
        sends_problem(&client.get(&format!("{url}/keys")).await, ErrorCode::PartitionOffline);
    }
    cluster.restart_node(0).await;
    cluster.ready().await;
    cluster.read_back(&entries).await;
    assert_eq!(client.delete(&key_url(&url, "key 0")).await.status, 204);
}
