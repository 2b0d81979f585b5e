use std::time::Duration;

use cairn_api_spec::operation::Durability;
use serde_json::json;

use crate::server::start;

#[tokio::test]
async fn a_counter_begins_at_nothing_adds_up_and_is_read_as_text() {
    let server = start().await;
    for (delta, sum) in [(5, 5), (-7, -2), (0, -2)] {
        let reply = server.post("/counters/visits", &json!({"delta": delta})).await;
        let body = reply.json();
        assert_eq!((reply.status, &body["key"], &body["value"]), (200, &json!("visits"), &json!(sum)));
        assert_eq!(body["version"], reply.version().to_string());
    }
    assert_eq!(server.post("/counters/visits", &json!({})).await.json()["value"], -1, "without a delta, it is 1");
    let stored = server.get("/keys/visits").await;
    assert_eq!((stored.text(), stored.header("Content-Type")), ("-1", Some("text/plain")));
}

#[tokio::test]
async fn key_bucket_ttl_durability_condition_and_idempotency_key_are_read_as_for_a_put() {
    let server = start().await;
    let headers = ["Content-Type: application/json", "If-None-Match: *", "Idempotency-Key: once"];
    let target = "/counters/a%2Fb/..?bucket=b&durability=fsync";
    let first = server.send("POST", target, &headers, br#"{"ttl": "10m"}"#).await;
    assert_eq!(first.status, 200, "{first:?}");
    let seen = server.domain.seen.borrow().clone();
    assert_eq!(seen.last_put, Some((Some(Duration::from_secs(600)), Some(Durability::Fsync))));
    assert_eq!(seen.idempotency_key.as_deref(), Some("once"));
    assert_eq!(server.get("/keys/a/b/..?bucket=b").await.text(), "1");
    server.send("POST", target, &headers, b"{}").await.error(412, "precondition_failed");
    assert_eq!(server.metric("cairn_operations_total{operation=\"increment_counter\",result=\"stored\"}"), 1.0);
}

#[tokio::test]
async fn what_is_no_increment_is_refused() {
    let server = start().await;
    for body in [json!({"delta": 1.5}), json!({"delta": "1"}), json!({"delta": 9.3e18}), json!({"by": 1}), json!([])] {
        server.post("/counters/k", &body).await.error(400, "invalid_body");
    }
    server.post("/counters/k", &json!({"ttl": 0})).await.error(400, "invalid_ttl");
    server.post("/counters/", &json!({})).await.error(400, "invalid_key");
    server.post("/counters/k?ttl=1", &json!({})).await.error(400, "invalid_parameter");
    server.send("POST", "/counters/k", &[], b"{}").await.error(415, "unsupported_media_type");
    assert_eq!(server.get("/keys/k").await.status, 404);
}
