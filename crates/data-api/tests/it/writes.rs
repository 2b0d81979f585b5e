use std::time::Duration;

use cairn_api_spec::operation::Durability;

use crate::server::start;

#[tokio::test]
async fn a_put_creates_then_replaces_and_the_version_grows() {
    let server = start().await;
    let (first, second) = (server.put("/keys/a", "1").await, server.put("/keys/a", "2").await);
    assert_eq!((first.status, second.status), (201, 204));
    assert!(second.version() > first.version());
    assert_eq!((first.body.len(), first.header("Location")), (0, None));
    assert_eq!(server.get("/keys/a").await.text(), "2");
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    let server = start().await;
    assert_eq!(server.send("PUT", "/keys/a", &["Content-Length: 0"], b"").await.status, 201);
    let reply = server.get("/keys/a").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
}

#[tokio::test]
async fn writes_are_conditional_on_the_version() {
    let server = start().await;
    let put = async |condition: &str| server.send("PUT", "/keys/a", &[condition], b"x").await;
    put("If-Match: *").await.error(412, "precondition_failed");
    let version = put("If-None-Match: *").await.version();
    let lost = put("If-None-Match: *").await;
    lost.error(412, "precondition_failed");
    assert_eq!(lost.version(), version);
    let next = put(&format!("If-Match: \"{version}\"")).await;
    assert_eq!(next.status, 204);
    put(&format!("If-Match: \"{version}\"")).await.error(412, "precondition_failed");

    let delete = async |condition: String| server.send("DELETE", "/keys/a", &[&condition], b"").await;
    delete(format!("If-Match: \"{version}\"")).await.error(412, "precondition_failed");
    assert_eq!(delete(format!("If-Match: \"{}\"", next.version())).await.status, 204);
}

#[tokio::test]
async fn conditions_that_cannot_be_read_are_refused() {
    let server = start().await;
    server.put("/keys/a", "1").await;
    for conditions in [
        &["If-Match: 7"][..],
        &["If-Match: W/\"7\""],
        &["If-Match: \"7\", \"8\""],
        &["If-Match: \"7\"", "If-Match: \"8\""],
        &["If-Match: \"7\"", "If-None-Match: *"],
        &["If-None-Match: \"\u{e9}\""],
    ] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let reply = server.send(method, "/keys/a", conditions, b"").await;
            assert_eq!(reply.status, 400, "{method} {conditions:?}");
        }
        server.send("PUT", "/keys/a", conditions, b"").await.error(400, "invalid_parameter");
    }
    assert_eq!(server.get("/keys/a").await.text(), "1");
}

#[tokio::test]
async fn a_delete_removes_once() {
    let server = start().await;
    let version = server.put("/keys/a", "1").await.version();
    let deleted = server.send("DELETE", "/keys/a?durability=memory", &[], b"").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert!(deleted.version() > version);
    let again = server.send("DELETE", "/keys/a", &[], b"").await;
    again.error(404, "key_not_found");
    assert_eq!(again.version(), deleted.version());
}

#[tokio::test]
async fn the_ttl_is_the_parameter_else_max_age_else_nothing() {
    let server = start().await;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (target, headers, ttl) in [
        ("/keys/a?ttl=30", &[][..], seconds(30)),
        ("/keys/a?ttl=250ms", &[], Some(Duration::from_millis(250))),
        ("/keys/a?ttl=10m", &["Cache-Control: max-age=60"], seconds(600)),
        ("/keys/a", &["Cache-Control: public, max-age=60"], seconds(60)),
        ("/keys/a", &["Cache-Control: public", "Cache-Control: max-age=61"], seconds(61)),
        ("/keys/a", &["Cache-Control: no-cache"], None),
        ("/keys/a", &[], None),
    ] {
        let reply = server.send("PUT", target, headers, b"1").await;
        assert!(reply.status < 300, "{target} {headers:?} {reply:?}");
        assert_eq!(server.domain.seen.borrow().last_put.unwrap().0, ttl, "{target} {headers:?}");
    }
    for ttl in ["0", "-1", "1.5", "x", "", "0ms", "99999d"] {
        server.put(&format!("/keys/a?ttl={ttl}"), "1").await.error(400, "invalid_ttl");
    }
    server.send("PUT", "/keys/a", &["Cache-Control: max-age=0"], b"1").await.error(400, "invalid_ttl");
}

#[tokio::test]
async fn the_durability_is_passed_on() {
    let server = start().await;
    for (text, durability) in [
        ("?durability=memory", Some(Durability::Memory)),
        ("?durability=disk", Some(Durability::Disk)),
        ("?durability=fsync", Some(Durability::Fsync)),
        ("?durability=object", Some(Durability::Object)),
        ("", None),
    ] {
        server.put(&format!("/keys/a{text}"), "1").await;
        assert_eq!(server.domain.seen.borrow().last_put.unwrap().1, durability);
    }
    let detail = server.put("/keys/a?durability=paper", "1").await.error(400, "invalid_parameter");
    assert!(detail.contains("fsync"), "{detail}");
}

#[tokio::test]
async fn every_write_passes_its_idempotency_key_on() {
    let server = start().await;
    let seen = || server.domain.seen.borrow().idempotency_key.clone();
    let large = "x".repeat(100_000);
    let json = "Content-Type: application/json";
    for (method, target, body) in [
        ("PUT", "/keys/a", "1"),
        ("PUT", "/keys/a", &large),
        ("POST", "/keys", r#"{"key":"a","value":"1"}"#),
        ("DELETE", "/keys/a", ""),
    ] {
        let reply = server.send(method, target, &[json, "Idempotency-Key: once-1"], body.as_bytes()).await;
        assert!(reply.status < 300, "{method} {reply:?}");
        assert_eq!(seen().as_deref(), Some("once-1"), "{method}");
        server.send(method, target, &[json], body.as_bytes()).await;
        assert_eq!(seen(), None, "{method}");
    }
}

#[tokio::test]
async fn an_idempotency_key_that_is_none_is_refused() {
    let server = start().await;
    let long = format!("Idempotency-Key: {}", "k".repeat(256));
    let twice = ["Idempotency-Key: a", "Idempotency-Key: b"];
    for headers in
        [&["Idempotency-Key: "][..], &["Idempotency-Key: a b"], &["Idempotency-Key: \u{e9}"], &[&long], &twice]
    {
        for (method, target) in [("PUT", "/keys/a"), ("POST", "/keys"), ("DELETE", "/keys/a")] {
            server.send(method, target, headers, b"1").await.error(400, "invalid_parameter");
        }
    }
    let detail = server.send("PUT", "/keys/a", &["Idempotency-Key: "], b"1").await.error(400, "invalid_parameter");
    assert!(detail.contains("1 to 255 visible ASCII"), "{detail}");
    let longest = format!("Idempotency-Key: {}", "k".repeat(255));
    assert_eq!(server.send("PUT", "/keys/a", &[&longest], b"1").await.status, 201);
}

#[tokio::test]
async fn a_content_type_that_cannot_come_back_is_refused() {
    let server = start().await;
    let fits = format!("Content-Type: {}", "a".repeat(255));
    assert_eq!(server.send("PUT", "/keys/a", &[&fits], b"1").await.status, 201);
    for bad in
        [format!("Content-Type: {}", "a".repeat(256)), "Content-Type: \u{e9}".into(), "Content-Type: a\tb".into()]
    {
        server.send("PUT", "/keys/a", &[&bad], b"1").await.error(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn an_encoded_value_is_refused_and_identity_is_none() {
    let server = start().await;
    server.send("PUT", "/keys/a", &["Content-Encoding: gzip"], b"1").await.error(415, "unsupported_media_type");
    assert_eq!(server.send("PUT", "/keys/a", &["Content-Encoding: identity"], b"1").await.status, 201);
}
