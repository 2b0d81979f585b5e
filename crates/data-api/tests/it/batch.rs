use serde_json::{Value, json};

use crate::server::{Response, Server, head, start};

async fn batch(server: &Server, operations: Value) -> Vec<Value> {
    let reply = server.post("/batch", &json!({"operations": operations})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["results"].as_array().unwrap().clone()
}

async fn keyed(server: &Server, key: &str, operations: Value) -> Response {
    let headers = ["Content-Type: application/json", &format!("Idempotency-Key: {key}")];
    let body = json!({"operations": operations}).to_string();
    server.send("POST", "/batch", &headers, body.as_bytes()).await
}

fn statuses(results: &[Value]) -> Vec<u64> {
    results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_operation_has_the_result_that_it_would_have_by_itself() {
    let server = start().await;
    let results = batch(
        &server,
        json!([
            {"op": "put", "key": "a", "value": "Ada", "content_type": "text/x"},
            {"op": "put", "key": "a", "value": "Eve"},
            {"op": "get", "key": "a"},
            {"op": "get", "key": "a", "bucket": "other"},
            {"op": "increment", "key": "n"},
            {"op": "increment", "key": "n", "delta": -3},
            {"op": "put", "key": "a", "value": "x", "if_none_match": "*"},
            {"op": "delete", "key": "a"},
            {"op": "delete", "key": "a"},
            {"op": "get", "key": ""},
        ]),
    )
    .await;
    assert_eq!(statuses(&results), [201, 204, 200, 404, 200, 200, 412, 204, 404, 400]);
    assert_eq!((&results[2]["key"], &results[2]["value"]), (&json!("a"), &json!("Eve")));
    assert_eq!(results[2]["version"], results[1]["version"]);
    assert_eq!((&results[4]["value"], &results[5]["value"]), (&json!("1"), &json!("-2")));
    for (index, code) in [(3, "key_not_found"), (6, "precondition_failed"), (8, "key_not_found"), (9, "invalid_key")] {
        assert_eq!(results[index]["problem"]["code"], code);
        assert!(!results[index]["problem"]["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(results[6]["version"], results[2]["version"]);
    assert_eq!(server.metric("cairn_operations_total{operation=\"put_key\",result=\"stored\"}"), 2.0);
}

#[tokio::test]
async fn values_come_and_go_as_text_json_or_base64() {
    let server = start().await;
    let results = batch(
        &server,
        json!([
            {"op": "put", "key": "bytes", "value_base64": "/wAB"},
            {"op": "put", "key": "json", "value": {"b": 1, "a": null}},
            {"op": "put", "key": "null", "value": null},
            {"op": "put", "key": "control", "value": "\u{1}"},
            {"op": "get", "key": "bytes"},
            {"op": "get", "key": "json"},
            {"op": "get", "key": "null"},
            {"op": "get", "key": "control"},
        ]),
    )
    .await;
    assert_eq!((&results[4]["value_base64"], results[4].get("value")), (&json!("/wAB"), None));
    assert_eq!((results[4].get("content_type"), &results[5]["content_type"]), (None, &json!("application/json")));
    assert_eq!((&results[5]["value"], &results[6]["value"]), (&json!("{\"a\":null,\"b\":1}"), &json!("null")));
    assert_eq!(results[7]["value_base64"], "AQ==", "text that would need escapes for each character");
    assert_eq!(server.get("/keys/bytes").await.body, [255, 0, 1]);
}

#[tokio::test]
async fn conditions_are_versions_with_or_without_quotes() {
    let server = start().await;
    let version = server.put("/keys/k", "1").await.version();
    let results = batch(
        &server,
        json!([
            {"op": "get", "key": "k", "if_none_match": version.to_string()},
            {"op": "get", "key": "k", "if_match": "1"},
            {"op": "put", "key": "k", "value": "2", "if_match": format!("\"{version}\"")},
            {"op": "put", "key": "k", "value": "3", "if_match": version.to_string()},
            {"op": "put", "key": "k", "value": "3", "if_match": "W/1"},
            {"op": "put", "key": "k", "value": "3", "if_match": "*", "if_none_match": "*"},
        ]),
    )
    .await;
    assert_eq!(statuses(&results), [304, 412, 204, 412, 400, 400]);
    assert_eq!(server.get("/keys/k").await.text(), "2");
}

#[tokio::test]
async fn a_batchs_idempotency_key_is_numbered_for_its_writes_and_one_of_their_own_goes_before() {
    let server = start().await;
    let operations = json!([
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "nope", "key": "a"},
    ]);
    keyed(&server, "order-17", operations).await.error(400, "invalid_body");
    let operations = json!([
        {"op": "put", "key": "", "value": "1"},
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "increment", "key": "n", "idempotency_key": "mine"},
        {"op": "delete", "key": "a"},
    ]);
    assert_eq!(keyed(&server, "order-17", operations).await.status, 200);
    let keys: Vec<_> = server.domain.seen.borrow().batch_keys.clone();
    let key = |text: &str| Some(text.to_owned());
    assert_eq!(keys, [key("order-17:1"), None, key("mine"), key("order-17:4")]);
    let one = json!([{"op": "get", "key": "a"}]);
    assert_eq!(keyed(&server, &"k".repeat(251), one.clone()).await.status, 200);
    let detail = keyed(&server, &"k".repeat(252), one).await.error(400, "invalid_parameter");
    assert!(detail.contains("251"), "{detail}");
}

#[tokio::test]
async fn a_field_that_does_not_belong_to_its_operation_is_refused_for_that_operation() {
    let server = start().await;
    let misplaced = [
        json!({"op": "get", "key": "k", "value": "1"}),
        json!({"op": "get", "key": "k", "durability": "disk"}),
        json!({"op": "get", "key": "k", "idempotency_key": "i"}),
        json!({"op": "delete", "key": "k", "ttl": 1}),
        json!({"op": "delete", "key": "k", "value_base64": ""}),
        json!({"op": "put", "key": "k", "value": "1", "delta": 1}),
        json!({"op": "put", "key": "k"}),
        json!({"op": "put", "key": "k", "value": "1", "value_base64": ""}),
        json!({"op": "increment", "key": "k", "content_type": "text/plain"}),
    ];
    for result in batch(&server, json!(misplaced)).await {
        assert_eq!((&result["status"], &result["problem"]["code"]), (&json!(400), &json!("invalid_body")), "{result}");
    }
    assert_eq!(server.domain.seen.borrow().batched, 0);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_as_a_whole() {
    let server = start().await;
    let put = json!({"op": "put", "key": "k", "value": "1"});
    for body in [
        json!({"operations": []}),
        json!({"operations": vec![put.clone(); 1_001]}),
        json!({"operations": [put.clone(), {"op": "put"}]}),
        json!({"operations": [put.clone(), {"op": "get", "key": "k", "unknown": 1}]}),
        json!([put.clone()]),
        json!({"operations": [put.clone()], "bucket": "b"}),
    ] {
        server.post("/batch", &body).await.error(400, "invalid_body");
    }
    server.post("/batch?bucket=b", &json!({"operations": [put]})).await.error(400, "invalid_parameter");
    let (headers, body) = (["Content-Type: application/json", "If-Match: *"], json!({"operations": [put]}).to_string());
    server.send("POST", "/batch", &headers, body.as_bytes()).await.error(400, "invalid_parameter");
    server.send("POST", "/batch", &[], b"{}").await.error(415, "unsupported_media_type");
    assert_eq!(server.get("/keys/k").await.status, 404);
}

#[tokio::test]
async fn a_long_batch_is_refused_before_it_is_read_and_a_long_value_by_itself() {
    let server = start().await;
    let declared = head("POST", "/batch", &["Content-Type: application/json", "Content-Length: 16777217"]);
    server.raw(format!("{declared}\r\n").as_bytes()).await.error(413, "value_too_large");

    let long = "x".repeat((1 << 20) + 1);
    let results = batch(
        &server,
        json!([{"op": "put", "key": "long", "value": long}, {"op": "put", "key": "short", "value": "1"}]),
    )
    .await;
    assert_eq!(statuses(&results), [413, 201]);
    let detail = results[0]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("PUT this one by itself"), "{detail}");
    server.put("/keys/long", &"x".repeat(300 << 10)).await;
    let results = batch(&server, json!([{"op": "get", "key": "long"}, {"op": "get", "key": "short"}])).await;
    assert_eq!(statuses(&results), [413, 200]);
    let detail = results[0]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("GET this one of 307200 bytes by itself"), "{detail}");
}
