//! What an orchestrator sees of the images: health, metrics, and how little they may do.

use cairn_api_spec::cluster::NodeStats;
use prometheus_parse::{LineInfo, Scrape, Value};
use testcontainers::bollard::models::HealthStatusEnum;

use crate::support::{Cluster, Container, Setup, eventually};

/// The samples, none of whose lines another program's parser may leave out.
async fn scrape(cluster: &Cluster, container: &Container) -> Scrape {
    let text = cluster.client.get(&format!("{}/metrics", container.url().await)).await.text();
    let ignored = text.lines().find(|line| matches!(LineInfo::parse(line), LineInfo::Ignored));
    assert_eq!(ignored, None);
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The value of a counter or gauge with these labels.
fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has_labels = |sample: &&prometheus_parse::Sample| labels.iter().all(|(l, v)| sample.labels.get(l) == Some(v));
    let sample = scrape.samples.iter().find(|sample| sample.metric == name && has_labels(sample));
    match sample.map(|sample| &sample.value) {
        Some(Value::Counter(value) | Value::Gauge(value)) => *value,
        other => panic!("{name}{labels:?}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_can_read_what_both_servers_expose() {
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, ..Setup::default() }).await;
    let entries: Vec<_> = (0..20).map(|i| (format!("key {i}"), "value".to_owned())).collect();
    cluster.import(&entries, "").await;
    cluster.read_back(&entries).await;
    // Each server counts the operations that clients ask of it.
    for server in [cluster.url.clone(), cluster.nodes[0].url().await] {
        assert!(cluster.client.put_key(&server, "straight", "", "value").await.is_stored());
        assert_eq!(cluster.client.get_key(&server, "missing").await.status, 404);
    }
    cluster.uploaded().await;
    let (master, node) = (scrape(&cluster, &cluster.master).await, scrape(&cluster, &cluster.nodes[0]).await);
    for scrape in [&master, &node] {
        assert!(value(scrape, "cairn_ring_epoch", &[]) >= 1.0);
        let is_put = |sample: &&prometheus_parse::Sample| sample.labels.get("operation") == Some("put_key");
        let durations = scrape.samples.iter().filter(|sample| sample.metric == "cairn_operation_duration_seconds");
        let put = durations.clone().find(is_put).unwrap_or_else(|| panic!("{:?}", durations.collect::<Vec<_>>()));
        let Value::Histogram(buckets) = &put.value else { panic!("{put:?}") };
        assert!(buckets.last().is_some_and(|bucket| bucket.count >= 1.0), "{put:?}");
        assert!(value(scrape, "cairn_errors_total", &[("code", "key_not_found")]) >= 1.0);
    }
    assert!(value(&master, "cairn_requests_total", &[("method", "GET")]) >= 21.0);
    assert_eq!(value(&master, "cairn_nodes", &[("state", "active")]), 1.0);
    assert_eq!(value(&node, "cairn_cache_hits_total", &[("tier", "memory")]), 20.0);
    assert_eq!(value(&node, "cairn_cache_misses_total", &[]), 2.0);
    assert_eq!(value(&node, "cairn_entries", &[("tier", "memory")]), 21.0);
    assert!(value(&node, "cairn_bytes", &[("tier", "disk")]) > 0.0);
    assert_eq!(value(&node, "cairn_uploads_pending", &[]), 0.0);
    assert_eq!(value(&node, "cairn_partitions_serving", &[]), 64.0);
    // Where clients see it.
    let stats: NodeStats = cluster.client.json(&format!("{}/stats", cluster.nodes[0].url().await)).await;
    assert_eq!(stats.hits, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_images_become_healthy_without_root_on_a_root_file_system_that_nobody_can_write() {
    let cluster = Cluster::start(Setup { nodes: 1, ..Setup::default() }).await;
    for container in [&cluster.master, &cluster.nodes[0]] {
        eventually("the container is healthy", async || {
            let health = container.inspect().await.state.and_then(|state| state.health);
            match health.as_ref().and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => Ok(()),
                _ => Err(format!("{health:?}")),
            }
        })
        .await;
        let (code, output) = container.exec(&["cat", "/proc/1/status"]).await;
        assert_eq!(code, 0, "{output}");
        let ids: Vec<&str> =
            output.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:")).collect();
        assert!(ids.len() == 2 && ids.iter().all(|line| !line.split_whitespace().any(|id| id == "0")), "{ids:?}");
        let (code, output) = container.exec(&["touch", "/tmp/written"]).await;
        assert!(code != 0 && output.contains("Read-only file system"), "{code}: {output}");
        let (code, output) = container.exec(&["touch", "/data/written"]).await;
        assert_eq!(code, 0, "{output}");
    }
}
