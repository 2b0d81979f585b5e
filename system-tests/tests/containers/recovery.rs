//! Nodes that lost their volume.

use crate::support::{Cluster, Setup, eventually, key_url};

fn entries() -> Vec<(String, String)> {
    (0..300).map(|i| (format!("key {i}"), format!("value {i}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_uploaded_comes_back_from_the_bucket_when_the_only_copy_is_lost() {
    let master = &[("REPLICATION_FACTOR", "1")];
    let mut cluster = Cluster::start(Setup { nodes: 2, object_store: true, master, ..Setup::default() }).await;
    let entries = entries();
    cluster.import(&entries, "").await;
    let deleted = &entries[..20];
    for (key, _) in deleted {
        assert_eq!(cluster.client.delete(&key_url(&cluster.url, key)).await.status, 204);
    }
    cluster.uploaded().await;
    let (lost, _) = cluster.keys_of(0, entries.len()).await;
    assert!(entries.iter().any(|(key, _)| lost.contains(key)));
    cluster.replace_node(0).await;
    cluster.settled().await;
    cluster.read_back(&entries[deleted.len()..]).await;
    for (key, _) in deleted {
        assert_eq!(cluster.client.get_key(&cluster.url, key).await.status, 404, "{key} was deleted");
    }
    cluster.import(&entries, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_volume_learns_everything_from_the_other_copy() {
    let mut cluster = Cluster::start(Setup { nodes: 2, ..Setup::default() }).await;
    let entries = entries();
    cluster.import(&entries, "").await;
    cluster.replace_node(0).await;
    cluster.settled().await;
    cluster.read_back(&entries).await;
    // Now it is the only one that can have them.
    cluster.nodes[1].kill().await;
    eventually("the node has taken over", async || {
        let reply = cluster.client.put_key(&cluster.url, &entries[0].0, "", entries[0].1.clone()).await;
        if reply.is_stored() { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    cluster.read_back(&entries).await;
}
