//! Servers that end without warning, and data that are gone.

use std::collections::BTreeSet;

use cairn_api_spec::cluster::Ring;
use futures_util::{StreamExt, stream};

use crate::support::{CONCURRENCY, Client, Cluster, Load, PATIENCE, Setup, eventually};

fn entries(count: usize) -> Vec<(String, String)> {
    (0..count).map(|i| (format!("key {i}"), format!("value {i}"))).collect()
}

/// Stores values through the master, each as often as it takes until that is answered.
async fn import_through_failures(client: &Client, url: &str, entries: &[(String, String)]) -> Vec<u64> {
    let put = async |(key, value): &(String, String)| {
        eventually(key, PATIENCE, async || {
            let reply = client.put_key(url, key, "", value.clone()).await;
            assert!(reply.is_stored() || matches!(reply.status, 503 | 504), "{key}: {reply:?}");
            if reply.is_stored() { Ok(reply.version()) } else { Err(reply.text()) }
        })
        .await
    };
    stream::iter(entries).map(put).buffered(CONCURRENCY).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_copy_every_answered_write_survives_kill_9_and_every_uploaded_key_the_loss_of_the_disk() {
    // The clients ask the master, which tries so long before it says that a partition is offline.
    let master = &[("PARTITIONS", "48"), ("REPLICATION_FACTOR", "1"), ("LINK_DEADLINE", "500ms")];
    let mut cluster = Cluster::start(Setup { object_store: true, master, ..Setup::default() }).await;
    let (client, url, entries) = (cluster.client.clone(), cluster.url().to_owned(), entries(3_000));
    let load = Load::start(&client, &url, &[]);
    let import = import_through_failures(&client, &url, &entries);
    let crash = async {
        load.progress(200).await;
        cluster.nodes[0].kill();
        // The others go on meanwhile.
        load.progress(200).await;
        cluster.restart_node(0).await;
        load.progress(200).await;
    };
    let (versions, ()) = tokio::join!(import, crash);
    cluster.ready().await;
    load.finish(&client, &url).await;
    let replies = cluster.read_back(&entries).await;
    for ((answered, reply), (key, _)) in versions.iter().zip(&replies).zip(&entries) {
        assert!(reply.version() >= *answered, "{key}: {answered} was answered, {reply:?}");
    }

    cluster.uploaded().await;
    cluster.nodes[0].kill();
    cluster.wipe_node(0);
    cluster.restart_node(0).await;
    cluster.ready().await;
    let restored = cluster.read_back(&entries).await;
    assert!(replies.iter().zip(&restored).all(|(before, after)| after.version() >= before.version()));
    let rewritten = cluster.import(&entries).await;
    assert!(restored.iter().zip(&rewritten).all(|(before, after)| *after > before.version()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_master_has_the_same_map_and_nodes_serve_without_it() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let entries = entries(300);
    cluster.import(&entries).await;
    cluster.settled().await;
    let owners = cluster.owners(entries.iter().map(|(key, _)| key.as_str())).await;
    let before: Ring = cluster.ring().await;

    cluster.master.kill();
    for ((key, value), owner) in entries.iter().zip(&owners) {
        let node = cluster.node_url(*owner);
        assert_eq!(cluster.client.get_key(node, key).await.text(), *value, "{key}");
        assert_eq!(cluster.client.put_key(node, key, "", value.clone()).await.status, 204, "{key}");
    }
    cluster.master.start().await;
    cluster.ready().await;
    let after = cluster.ring().await;
    assert_eq!((before.cluster_id, &before.partitions), (after.cluster_id, &after.partitions));
    assert_eq!(before.nodes, after.nodes);
    assert!(after.epoch >= before.epoch);
    cluster.read_back(&entries).await;
    cluster.import(&entries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_and_nothing_is_lost_when_every_process_is_killed_at_once() {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.settled().await;
    let load = Load::start(&cluster.client, cluster.url(), &[]);
    load.progress(1_000).await;
    let before = cluster.ring().await;
    cluster.master.kill();
    cluster.nodes.iter_mut().for_each(crate::support::Server::kill);
    for index in 0..3 {
        cluster.nodes[index].spawn();
    }
    cluster.master.start().await;
    cluster.settled().await;
    load.progress(200).await;
    let holders = |ring: &Ring| -> Vec<_> {
        let partitions = ring.partitions.iter();
        partitions
            .map(|entry| (entry.generation, entry.primary.clone(), BTreeSet::from_iter(entry.in_sync.clone())))
            .collect()
    };
    assert_eq!(holders(&cluster.ring().await), holders(&before));
    let (client, url) = (cluster.client.clone(), cluster.url().to_owned());
    load.finish(&client, &url).await;
}
