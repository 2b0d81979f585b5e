//! What the other routes say.

use std::time::{Duration, Instant};

use cairn_api_spec::cluster::{ByTier, Health, Heartbeat, NodeStats, Ring, Stats};
use reqwest::{Method, StatusCode};

use crate::support::{code, heartbeat, spawn_master};

#[tokio::test]
async fn a_waiting_request_for_the_map_wakes_on_a_change() {
    let master = spawn_master(&[]).await;
    let before = master.ring().await;
    let (next, ()) = tokio::join!(master.ring_after(before.epoch, 15), async { master.register_all(&["a"]).await });
    assert_eq!(next.status(), StatusCode::OK);
    let etag = next.headers()["etag"].to_str().unwrap().to_owned();
    let next: Ring = next.json().await.unwrap();
    assert!(next.epoch > before.epoch);
    assert_eq!((etag, next.nodes.len()), (format!("\"{}\"", next.epoch), 1));
}

#[tokio::test]
async fn the_map_that_a_client_has_is_not_sent_again() {
    let master = spawn_master(&[]).await;
    let ring = master.ring().await;
    assert_eq!(master.ring_after(ring.epoch, 0).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(master.ring_after(ring.epoch, 1).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(master.ring_after(ring.epoch + 1, 15).await.status(), StatusCode::OK);
    for path in ["/ring?wait=61", "/ring?wait=-1", "/ring?wait=soon", "/ring?weight=1"] {
        assert_eq!(code(master.get(path).await).await, (400, "invalid_parameter".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_those_who_wait_for_the_map() {
    let master = spawn_master(&[]).await;
    let epoch = master.ring().await.epoch;
    let waiting = reqwest::Client::builder().no_proxy().build().unwrap();
    let waiting = waiting.get(format!("{}/ring?wait=60", master.url)).header("If-None-Match", format!("\"{epoch}\""));
    let waiting = tokio::spawn(waiting.send());
    tokio::task::yield_now().await;
    let began = Instant::now();
    master.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15));
    drop(waiting.await);
}

#[tokio::test]
async fn statistics_are_sums_of_what_the_nodes_said() {
    let master = spawn_master(&["--replication-factor=1"]).await;
    master.register_all(&["a", "b"]).await;
    master.assigned_ring().await;
    let said = |hits, misses, upload_age_seconds| NodeStats {
        hits,
        misses,
        upload_age_seconds,
        entries_by_tier: ByTier { memory: 1, disk: 2, object: u64::MAX },
        ..NodeStats::default()
    };
    for (id, stats) in [("a", said(2, 1, 0.5)), ("b", said(1, 0, 7.5))] {
        let heartbeat = Heartbeat { stats, ..heartbeat() };
        assert_eq!(master.beat(id, &heartbeat).await.status(), StatusCode::OK);
    }
    let stats: Stats = master.get("/stats").await.json().await.unwrap();
    assert_eq!((stats.total.hits, stats.total.misses), (3, 1));
    assert!((stats.hit_ratio - 0.75).abs() < 1e-9 && (stats.total.upload_age_seconds - 7.5).abs() < 1e-9);
    assert_eq!(stats.total.entries_by_tier, ByTier { memory: 2, disk: 4, object: u64::MAX });
    assert_eq!((stats.nodes.len(), stats.partitions_offline, stats.partitions_moving), (2, 0, 0));
}

#[tokio::test]
async fn a_partition_with_a_silent_primary_counts_as_offline() {
    let master = spawn_master(&["--suspect-after=300ms", "--gone-after=600ms", "--replication-factor=1"]).await;
    master.register_all(&["a"]).await;
    let beating = master.keep_beating("a");
    master.assigned_ring().await;
    drop(beating);
    master.node_when("a", cairn_api_spec::cluster::NodeState::Gone).await;
    let stats: Stats = master.get("/stats").await.json().await.unwrap();
    assert_eq!(stats.partitions_offline, 256);
}

#[tokio::test]
async fn health_metrics_and_pages_answer() {
    let master = spawn_master(&[]).await;
    let health: Health = master.get("/health/live").await.json().await.unwrap();
    assert_eq!(health.status, "ok");
    master.register_all(&["a"]).await;
    master.assigned_ring().await;
    let metrics = master.get("/metrics").await.text().await.unwrap();
    for line in [
        "cairn_ring_epoch ",
        "cairn_partitions_under_replicated 256",
        "cairn_moves_active 0",
        "cairn_nodes{state=\"gone\"} 0",
        "cairn_partition_changes_total{reason=\"assigned\"} 256",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let root = master.get("/").await;
    assert_eq!((root.status().as_u16(), root.headers()["location"].to_str().unwrap()), (307, "/swagger-ui/"));
    assert!(master.get("/swagger-ui/").await.text().await.unwrap().contains("swagger"));
    let document: serde_json::Value = master.get("/api-docs/openapi.json").await.json().await.unwrap();
    assert_eq!(document, serde_json::to_value(cairn_master::openapi()).unwrap());
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_document() {
    let master = spawn_master(&[]).await;
    assert_eq!(code(master.get("/nothing").await).await, (404, "route_not_found".to_owned()));
    assert_eq!(code(master.send(Method::PATCH, "/nodes", &()).await).await, (405, "method_not_allowed".to_owned()));
    let unknown_field = serde_json::json!({"node_id": "a", "colour": "red"});
    assert_eq!(code(master.send(Method::POST, "/nodes", &unknown_field).await).await, (400, "invalid_body".to_owned()));
}
