//! What a server refuses to start with, and what it says then.

use std::fs;

use bytes::Bytes;
use cairn_api_spec::ErrorCode;
use reqwest::Method;

use crate::support::{Cluster, Server, Setup, sends_problem};

/// The log of a server that must not start.
async fn refusal(mut server: Server) -> String {
    server.spawn();
    let ended = server.ended().await;
    assert!(!ended.status.success(), "{} started", server.name);
    server.log()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_data_of_another_cluster_refuses_to_start_and_says_so() {
    let (mut ours, mut theirs) = (
        Cluster::start(Setup { nodes: 1, ..Setup::default() }).await,
        Cluster::start(Setup { nodes: 1, ..Setup::default() }).await,
    );
    ours.client.put_key(ours.url(), "key", "", "value").await;
    ours.nodes[0].kill();
    let mut lost = theirs.new_node("lost");
    lost.set("DATA_DIR", &ours.nodes[0].directory().join("data").display());
    let log = refusal(lost).await;
    assert!(log.contains("cluster_id of the data directory") && log.contains("use another data_dir"), "{log}");

    // It did no harm.
    ours.restart_node(0).await;
    ours.ready().await;
    assert_eq!(ours.client.get_key(ours.url(), "key").await.text(), "value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_with_the_same_id_is_refused_and_says_so() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let first = cluster.node("node-1").await.unwrap();
    let mut second = cluster.new_node("node-1");
    second.start().await;
    let line = second.log_line("beats from").await;
    assert!(line.contains("node_conflict") && line.contains(&first.address), "{line}");

    let body = serde_json::json!({
        "node_id": "node-1", "incarnation": 1, "address": "http://127.0.0.1:1", "peer_address": "127.0.0.1:2",
    });
    let headers = [("content-type", "application/json")];
    let url = format!("{}/nodes", cluster.url());
    let refused = cluster.client.send(Method::POST, &url, &headers, Bytes::from(body.to_string())).await.unwrap();
    sends_problem(&refused, ErrorCode::NodeConflict);
    assert_eq!(cluster.node("node-1").await.unwrap().address, first.address);
    let entries: Vec<_> = (0..50).map(|i| (i.to_string(), "value".to_owned())).collect();
    cluster.import(&entries).await;
    cluster.read_back(&entries).await;
}

#[tokio::test]
async fn a_setting_that_is_unknown_or_out_of_bounds_stops_the_start_and_the_message_says_what_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("cairn-node", "LRU_SIZE", "0", "1..=4294967295"),
        ("cairn-node", "DISK_MAX_BYTES", "1KiB", "65536"),
        ("cairn-node", "DEFAULT_TTL", "soon", "250ms"),
        ("cairn-node", "HEARTBEAT_INTERVAL", "1h", "10ms to 60s"),
        ("cairn-node", "ROUTER_ADDR", "localhost", "http://127.0.0.1:8080"),
        ("cairn-master", "PARTITIONS", "0", "1..=65536"),
        ("cairn-master", "SUSPECT_AFTER", "100ms", "suspect_after"),
        ("cairn-master", "LOG_LEVEL", "loud=very", "LOG_LEVEL"),
    ];
    for (binary, name, value, right) in settings {
        let environment = [(name, value.to_owned()), ("LISTEN_ADDR", "127.0.0.1:0".to_owned())];
        let log = refusal(Server::new(name, binary, &directory.path().join(name), &environment)).await;
        assert!(log.contains(right), "{name}={value} should be told {right:?}: {log}");
        assert!(log.to_lowercase().contains(&name.to_lowercase()), "{name}={value}: {log}");
    }
    for (file, right) in [("lru_sise = 5", "did you mean `lru_size`?"), ("lru_size = [", "config.toml")] {
        let home = directory.path().join(file.replace(' ', "-"));
        let server = Server::new("misspelt", "cairn-node", &home, &[]);
        fs::write(home.join("config.toml"), file).unwrap();
        let log = refusal(server).await;
        assert!(log.contains(right), "{file}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_opened_with_another_number_of_partitions_refuses_to_start_and_keeps_its_data() {
    let mut cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    cluster.client.put_key(cluster.url(), "key", "", "value").await;
    cluster.master.kill();
    cluster.master.set("PARTITIONS", &16);
    cluster.master.spawn();
    assert!(!cluster.master.ended().await.status.success());
    let log = cluster.master.log();
    assert!(log.contains("256 partitions"), "{log}");
    cluster.master.set("PARTITIONS", &256);
    cluster.master.start().await;
    cluster.ready().await;
    assert_eq!(cluster.client.get_key(cluster.url(), "key").await.text(), "value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_do_not_follow_a_master_without_its_store_and_go_on_when_it_has_it_again() {
    let mut cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    cluster.client.put_key(cluster.url(), "key", "", "value").await;
    for (directory, is_its_own) in [("elsewhere", false), ("data", true)] {
        cluster.master.kill();
        cluster.master.set("DATA_DIR", &directory);
        cluster.master.start().await;
        if is_its_own {
            cluster.ready().await;
        } else {
            cluster.nodes[0].log_line("the master belongs to another cluster").await;
        }
    }
    assert_eq!(cluster.client.get_key(cluster.url(), "key").await.text(), "value");
}
