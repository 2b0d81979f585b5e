//! Values that change on a disk by themselves.

use cairn_api_spec::cluster::Partition;

use crate::support::{Cluster, Mode, PATIENCE, Setup, eventually, led_by, rot};

const KEYS: usize = 8;

/// A value that stands nowhere else in a file.
fn value_of(key: &str) -> String {
    format!("the value of {key}, {}", "which is not to change ".repeat(12))
}

/// A cluster whose first node leads keys of which its own disk has rotted values, and another's good ones.
async fn with_rotted_values(setup: Setup, is_meant: impl Fn(&Partition) -> bool) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::start(setup).await;
    if setup.object_store {
        cluster.store().set(Mode::Failing);
    }
    cluster.settled().await;
    let keys = cluster.keys_in(KEYS, |partition| led_by("node-1")(partition) && is_meant(partition)).await;
    assert!(!keys.is_empty());
    for key in &keys {
        cluster.put(key, "", &value_of(key)).await;
    }
    cluster.settled().await;
    cluster.nodes[0].kill();
    for key in &keys {
        rot(&cluster.nodes[0].directory().join("data"), value_of(key).as_bytes()).await;
    }
    cluster.restart_node(0).await;
    cluster.settled().await;
    eventually("the node leads them again", PATIENCE, async || {
        let owners = cluster.owners(keys.iter().map(String::as_str)).await;
        if owners.iter().all(|owner| *owner == 0) { Ok(()) } else { Err(format!("{owners:?}")) }
    })
    .await;
    cluster.settled().await;
    (cluster, keys)
}

async fn are_good(cluster: &Cluster, keys: &[String]) {
    let mut wrong = Vec::new();
    for key in keys {
        let reply = cluster.client.get_key(cluster.url(), key).await;
        if (reply.status, reply.text()) != (200, value_of(key)) {
            wrong.push((key, reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are not what was written: {wrong:?}", wrong.len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_rotted_on_the_primarys_disk_is_healed_from_a_replica_when_it_is_read() {
    let (cluster, keys) =
        with_rotted_values(Setup { nodes: 2, master: &[("PARTITIONS", "8")], ..Setup::default() }, |_| true).await;
    are_good(&cluster, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_rotted_on_the_primarys_disk_is_not_copied_as_if_it_were_good() {
    let on_the_second = |partition: &Partition| partition.in_sync.iter().any(|node| node == "node-2");
    let setup = Setup { master: &[("PARTITIONS", "16")], ..Setup::default() };
    let (cluster, keys) = with_rotted_values(setup, on_the_second).await;
    // The node with the good copies leaves; another one makes copies in its place.
    let removed = cluster.client.delete(&format!("{}/nodes/node-2", cluster.url())).await;
    assert_eq!(removed.status, 202, "{removed:?}");
    eventually("the node leaves the registry", PATIENCE, async || {
        let reply = cluster.client.get(&format!("{}/nodes/node-2", cluster.url())).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    are_good(&cluster, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_rotted_on_the_primarys_disk_is_not_uploaded_as_if_it_were_good() {
    let setup = Setup { nodes: 2, object_store: true, master: &[("PARTITIONS", "8")], ..Setup::default() };
    let (mut cluster, keys) = with_rotted_values(setup, |_| true).await;
    cluster.store().set(Mode::Serving);
    cluster.uploaded().await;
    cluster.lose_all_disks().await;
    are_good(&cluster, &keys).await;
}
