use std::time::Duration;

use serde_json::json;

use crate::{
    memory::MAX_VALUE_BYTES,
    server::{head, start},
};

#[tokio::test]
async fn a_posted_key_is_created_then_replaced() {
    let server = start().await;
    let body = json!({"key": "value3", "value": "value3"});
    let first = server.post("/keys", &body).await;
    assert_eq!((first.status, first.header("Location")), (201, Some("/keys/value3")));
    assert_eq!(first.json(), json!({"key": "value3", "size": 6, "version": first.version().to_string()}));
    let second = server.post("/keys", &body).await;
    assert_eq!((second.status, second.header("Location")), (200, None));
    assert!(second.version() > first.version());
    let stored = server.get("/keys/value3").await;
    assert_eq!((stored.text(), stored.header("Content-Type")), ("value3", Some("text/plain; charset=utf-8")));
}

#[tokio::test]
async fn the_location_leads_to_the_key() {
    let server = start().await;
    for key in ["../a", "a b/c?d#e%f", "ключ", ".."] {
        for target in ["/keys", "/keys?bucket=sessions"] {
            let reply = server.post(target, &json!({"key": key, "value": key})).await;
            assert_eq!(server.get(reply.header("Location").unwrap()).await.text(), key);
        }
    }
    assert_eq!(server.get("/keys?bucket=sessions").await.json()["keys"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn any_other_json_value_is_stored_as_it_was_written() {
    let server = start().await;
    for text in ["{\"b\": 1,  \"a\": 12345678901234567890123}", "null", "[1, 2]", "1.50", "true"] {
        let body = format!("{{\"key\": \"a\", \"value\": {text} }}");
        let reply =
            server.send("POST", "/keys", &["Content-Type: application/json; charset=utf-8"], body.as_bytes()).await;
        assert!(reply.status < 300, "{reply:?}");
        let stored = server.get("/keys/a").await;
        assert_eq!((stored.text(), stored.header("Content-Type")), (text, Some("application/json")));
    }
}

#[tokio::test]
async fn bytes_come_as_base64_and_a_content_type_goes_before_the_natural_one() {
    let server = start().await;
    server.post("/keys", &json!({"key": "a", "value_base64": "/wAB", "content_type": "image/png"})).await;
    let stored = server.get("/keys/a").await;
    assert_eq!((&*stored.body, stored.header("Content-Type")), (&[255, 0, 1][..], Some("image/png")));
    server.post("/keys", &json!({"key": "a", "value_base64": ""})).await;
    assert_eq!(server.get("/keys/a").await.header("Content-Type"), Some("application/octet-stream"));
    server.post("/keys", &json!({"key": "a", "value": "<p>", "content_type": "text/html"})).await;
    assert_eq!(server.get("/keys/a").await.header("Content-Type"), Some("text/html"));
    for content_type in ["a\r\nSet-Cookie: b", "é", &"a".repeat(256)] {
        let body = json!({"key": "a", "value": "1", "content_type": content_type});
        server.post("/keys", &body).await.error(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn the_ttl_is_a_number_or_text() {
    let server = start().await;
    for (ttl, seconds) in [(json!(30), 30), (json!("10m"), 600), (json!("45"), 45)] {
        let reply = server.post("/keys", &json!({"key": "a", "value": "1", "ttl": ttl})).await;
        assert!(reply.json()["expires_at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(server.domain.seen.borrow().last_put.unwrap().0, Some(Duration::from_secs(seconds)));
    }
    for ttl in [json!(0), json!("0"), json!("-1"), json!("soon")] {
        server.post("/keys", &json!({"key": "a", "value": "1", "ttl": ttl})).await.error(400, "invalid_ttl");
    }
    for ttl in [json!(-1), json!(1.5), json!([1])] {
        server.post("/keys", &json!({"key": "a", "value": "1", "ttl": ttl})).await.error(400, "invalid_body");
    }
}

#[tokio::test]
async fn a_posted_key_can_be_conditional_and_durable() {
    let server = start().await;
    let headers = ["Content-Type: application/json", "If-None-Match: *"];
    let body = json!({"key": "a", "value": "1"}).to_string();
    let lock = server.send("POST", "/keys?durability=fsync", &headers, body.as_bytes()).await;
    assert_eq!(lock.status, 201);
    assert_eq!(server.domain.seen.borrow().last_put.unwrap().1, Some(cairn_api_spec::operation::Durability::Fsync));
    let lost = server.send("POST", "/keys", &headers, body.as_bytes()).await;
    lost.error(412, "precondition_failed");
    assert_eq!(lost.version(), lock.version());
}

#[tokio::test]
async fn a_document_that_cannot_be_taken_is_explained() {
    let server = start().await;
    let deep = format!("{{\"key\": \"a\", \"value\": {}", "[".repeat(100_000));
    for (body, expected) in [
        ("{\"key\": \"a\", \"value\": ", "line 1 column 22"),
        ("{\"key\": \"a\"}", "one of value and value_base64"),
        ("{\"key\": \"a\", \"value\": 1, \"value_base64\": \"\"}", "not both"),
        ("{\"key\": \"a\", \"value\": 1, \"value\": 2}", "duplicate field `value`"),
        ("{\"key\": \"a\", \"value\": 1, \"tll\": 2}", "unknown field `tll`"),
        ("{\"key\": 1, \"value\": 1}", "expected a string"),
        ("{\"value\": 1}", "missing field `key`"),
        ("{\"key\": \"a\", \"value_base64\": \"a\"}", "base64"),
        (&deep, "EOF while parsing a list"),
        ("[\"a\", 1]", "not a JSON object"),
    ] {
        let reply = server.send("POST", "/keys", &["Content-Type: application/json"], body.as_bytes()).await;
        let detail = reply.error(400, "invalid_body");
        assert!(detail.contains(expected), "{detail}");
    }
    server.post("/keys", &json!({"key": "", "value": 1})).await.error(400, "invalid_key");
    server.post("/keys", &json!({"key": "a\n", "value": 1})).await.error(400, "invalid_key");
}

#[tokio::test]
async fn only_json_is_posted() {
    let server = start().await;
    for headers in [&["Content-Type: text/plain"][..], &["Content-Type: application/x-www-form-urlencoded"], &[]] {
        server.send("POST", "/keys", headers, b"{}").await.error(415, "unsupported_media_type");
    }
    let encoded = ["Content-Type: application/json", "Content-Encoding: br"];
    server.send("POST", "/keys", &encoded, b"{}").await.error(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_long_posted_value_is_streamed_and_one_over_the_limit_refused() {
    let server = start().await;
    let fits = "x".repeat(MAX_VALUE_BYTES);
    assert_eq!(server.post("/keys", &json!({"key": "a", "value": fits})).await.status, 201);
    assert_eq!(server.domain.seen.borrow().streamed, 1);
    assert!(server.get("/keys/a").await.text() == fits);
    server.post("/keys", &json!({"key": "b", "value": fits + "x"})).await.error(413, "value_too_large");

    let length = format!("Content-Length: {}", 2 * MAX_VALUE_BYTES);
    let request = head("POST", "/keys", &["Content-Type: application/json", &length]);
    server.raw(format!("{request}\r\n").as_bytes()).await.error(413, "value_too_large");
}
