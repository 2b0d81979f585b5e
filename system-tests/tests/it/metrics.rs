//! What Prometheus is told.

use std::collections::{HashMap, HashSet};

use crate::support::{Cluster, Setup};

/// The samples of Prometheus's text format 0.0.4, by name and labels. What is none fails the test.
fn parse(text: &str) -> HashMap<String, f64> {
    let is_name = |name: &str| {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
        plain && !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit())
    };
    let (mut families, mut samples) = (HashSet::new(), HashMap::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(matches!(words[0], "HELP" | "TYPE") && is_name(words[1]), "{line}");
            if words[0] == "TYPE" {
                assert!(matches!(words[2], "counter" | "gauge" | "histogram"), "{line}");
                assert!(families.insert(words[1]), "a family stands there twice: {line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = families.contains(name) || family.is_some_and(|family| families.contains(family));
        assert!(is_name(name) && known, "no family: {line}");
        for label in labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty()) {
            let (label, text) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label) && !text.trim_end_matches('"').contains('"'), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "a sample stands there twice: {line}");
    }
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_both_servers_are_prometheus_text_with_the_documented_names() {
    let node = &[("LRU_SIZE", "1")];
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, node, ..Setup::default() }).await;
    let entries: Vec<_> = (0..20).map(|i| (i.to_string(), "value".to_owned())).collect();
    cluster.import(&entries).await;
    cluster.read_back(&entries).await;
    for server in [cluster.url(), cluster.node_url(0)] {
        assert_eq!(cluster.client.get_key(server, "missing").await.status, 404);
        assert_eq!(cluster.client.put_key(server, "straight", "", "value").await.status / 100, 2);
    }
    cluster.uploaded().await;
    let scrape = async |server: &str| {
        let reply = cluster.client.get(&format!("{server}/metrics")).await;
        assert!(reply.header("content-type").unwrap().starts_with("text/plain"), "{reply:?}");
        parse(&reply.text())
    };
    let (master, node) = (scrape(cluster.url()).await, scrape(cluster.node_url(0)).await);
    let value = |samples: &HashMap<String, f64>, series: &str| {
        *samples.get(series).unwrap_or_else(|| panic!("{series} is not there: {:?}", samples.keys()))
    };
    for samples in [&master, &node] {
        assert!(value(samples, "cairn_requests_total{method=\"GET\"}") > 0.0);
        assert!(value(samples, "cairn_errors_total{code=\"key_not_found\"}") >= 1.0);
        // 20 of the import, and one straight at the server or through the other one, wherever they came in.
        let puts = "cairn_operation_duration_seconds_bucket{operation=\"put_key\",le=\"+Inf\"}";
        assert!(value(samples, puts) >= 21.0);
        for (operation, result) in [("get_key", "hit"), ("get_key", "miss"), ("put_key", "stored")] {
            let ended = format!("cairn_operations_total{{operation=\"{operation}\",result=\"{result}\"}}");
            assert!(value(samples, &ended) >= 1.0, "{ended}");
        }
        assert!(value(samples, "process_resident_memory_bytes") > 0.0);
        assert!(samples.keys().any(|series| series.starts_with("cairn_build_info{")));
        assert_eq!(value(samples, "cairn_spans_dropped_total"), 0.0);
        assert!(value(samples, "cairn_ring_epoch") >= 1.0);
    }
    let tiers = ["memory", "disk", "object"];
    let hits: f64 = tiers.iter().map(|tier| value(&node, &format!("cairn_cache_hits_total{{tier=\"{tier}\"}}"))).sum();
    assert!(hits >= 20.0);
    assert!(value(&node, "cairn_cache_misses_total") >= 2.0);
    for name in ["cairn_entries", "cairn_bytes"] {
        assert!(tiers.iter().all(|tier| value(&node, &format!("{name}{{tier=\"{tier}\"}}")) >= 0.0));
    }
    assert_eq!(value(&node, "cairn_entries{tier=\"memory\"}"), 1.0);
    assert_eq!(value(&node, "cairn_uploads_pending"), 0.0);
    assert_eq!(value(&node, "cairn_partitions_serving"), 256.0);
    assert_eq!(value(&master, "cairn_nodes{state=\"active\"}"), 1.0);
    assert!(value(&master, "cairn_gateway_retries_total") >= 0.0);
}
