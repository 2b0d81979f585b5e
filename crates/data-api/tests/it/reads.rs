use crate::server::start;

#[tokio::test]
async fn a_value_comes_back_as_it_was_stored_with_what_is_known_of_it() {
    let server = start().await;
    server.send("PUT", "/keys/page", &["Content-Type: text/html; charset=utf-8"], b"<p>hi").await;

    let reply = server.get("/keys/page").await;
    assert_eq!((reply.status, reply.text()), (200, "<p>hi"));
    assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("Content-Length"), Some("5"));
    assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(reply.header("Cache-Status"), Some("node-1; hit; detail=memory"));
    assert!(reply.version() > 0);
    assert!(reply.header("Age").unwrap().parse::<u64>().unwrap() < 20);
    assert!(reply.header("Last-Modified").unwrap().ends_with(" GMT"));
    assert_eq!((reply.header("Expires"), reply.header("Cache-Control")), (None, None));
}

#[tokio::test]
async fn a_value_without_a_type_is_an_octet_stream() {
    let server = start().await;
    server.put("/keys/a", "1").await;
    assert_eq!(server.get("/keys/a").await.header("Content-Type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn an_expiring_value_says_when_and_how_long_it_still_lives() {
    let server = start().await;
    server.put("/keys/a?ttl=1h", "1").await;
    let reply = server.get("/keys/a").await;
    assert_eq!(reply.header("Cache-Control"), Some("max-age=3600"));
    assert!(reply.header("Expires").unwrap().ends_with(" GMT"));
    assert_ne!(reply.header("Expires"), reply.header("Last-Modified"));
    let status = reply.header("Cache-Status").unwrap();
    let left = status.strip_prefix("node-1; hit; ttl=").unwrap().strip_suffix("; detail=memory").unwrap();
    assert!((3_570..=3_600).contains(&left.parse::<u64>().unwrap()), "{status}");
}

#[tokio::test]
async fn an_absent_key_is_not_found_and_its_version_is_told() {
    let server = start().await;
    let never = server.get("/keys/a").await;
    never.error(404, "key_not_found");
    assert_eq!(never.header("ETag"), Some("\"0\""));
    assert_eq!(never.header("Cache-Status"), Some("node-1; fwd=miss"));

    server.put("/keys/a", "1").await;
    let deleted = server.send("DELETE", "/keys/a", &[], b"").await.version();
    let gone = server.get("/keys/a").await;
    gone.error(404, "key_not_found");
    assert_eq!(gone.version(), deleted);
}

#[tokio::test]
async fn head_says_what_get_says_without_the_value() {
    let server = start().await;
    for value in ["", "12345", &"x".repeat(300_000)] {
        server.send("PUT", "/keys/a?ttl=1h", &["Content-Type: text/css"], value.as_bytes()).await;
        let (head, get) = (server.send("HEAD", "/keys/a", &[], b"").await, server.get("/keys/a").await);
        assert_eq!(head.status, 200);
        assert!(head.body.is_empty());
        assert_eq!(head.header("Content-Length"), Some(&*value.len().to_string()));
        for name in ["Content-Length", "Content-Type", "ETag", "Last-Modified", "Expires", "Cache-Control"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(get.body, value.as_bytes());
    }
    let absent = server.send("HEAD", "/keys/b", &[], b"").await;
    assert_eq!((absent.status, absent.version()), (404, 0));
}

#[tokio::test]
async fn a_read_is_strong_unless_it_says_that_it_may_be_stale() {
    let server = start().await;
    let version = server.put("/keys/a", "1").await.version();
    for (target, detail) in [
        ("/keys/a", "detail=memory"),
        ("/keys/a?consistency=strong", "detail=memory"),
        ("/keys/a?consistency=eventual", "detail=replica"),
    ] {
        let reply = server.get(target).await;
        assert_eq!((reply.status, reply.text()), (200, "1"));
        assert_eq!(reply.header("Cache-Status"), Some(&*format!("node-1; hit; {detail}")));
        let same = server.send("HEAD", target, &[&format!("If-None-Match: \"{version}\"")], b"").await;
        assert_eq!(same.status, 304);
        assert_eq!(same.header("Cache-Status"), Some(&*format!("node-1; hit; {detail}")));
    }
    let detail = server.get("/keys/a?consistency=weak").await.error(400, "invalid_parameter");
    assert!(detail.contains("strong or eventual"), "{detail}");
    server.send("DELETE", "/keys/a?consistency=eventual", &[], b"").await.error(400, "invalid_parameter");
    server.get("/keys?consistency=eventual").await.error(400, "invalid_parameter");
}

#[tokio::test]
async fn several_heads_share_a_connection() {
    let server = start().await;
    server.put("/keys/a", "12345").await;
    let keep = "HEAD /keys/a HTTP/1.1\r\nHost: cairn\r\n\r\n";
    let close = crate::server::head("GET", "/keys/a", &[]);
    let replies = server.raw(format!("{keep}{keep}{close}\r\n").as_bytes()).await;
    let all = String::from_utf8(replies.body).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
    assert!(all.ends_with("\r\n\r\n12345"), "{all}");
}

#[tokio::test]
async fn a_version_that_the_client_has_is_not_sent_again() {
    let server = start().await;
    let version = server.put("/keys/a?ttl=1h", "1").await.version();
    for method in ["GET", "HEAD"] {
        let condition = format!("If-None-Match: \"{version}\"");
        let reply = server.send(method, "/keys/a", &[&condition], b"").await;
        assert_eq!((reply.status, reply.body.len(), reply.version()), (304, 0, version));
        assert_eq!(reply.header("Content-Type"), None);
        assert_eq!(reply.header("Cache-Control"), Some("max-age=3600"));
        let any = server.send(method, "/keys/a", &["If-None-Match: *"], b"").await;
        assert_eq!(any.status, 304);
        let other = server.send(method, "/keys/a", &["If-None-Match: \"1\""], b"").await;
        assert_eq!(other.status, 200);
    }
}

#[tokio::test]
async fn a_read_of_another_version_than_asked_for_fails_and_tells_the_live_one() {
    let server = start().await;
    let version = server.put("/keys/a", "1").await.version();
    let reply = server.send("GET", "/keys/a", &["If-Match: \"1\""], b"").await;
    reply.error(412, "precondition_failed");
    assert_eq!(reply.version(), version);
    let same = server.send("GET", "/keys/a", &[&format!("If-Match: \"{version}\"")], b"").await;
    assert_eq!(same.status, 200);
}

#[tokio::test]
async fn every_end_of_an_operation_is_counted() {
    let server = start().await;
    server.put("/keys/a", "1").await;
    server.get("/keys/a").await;
    server.get("/keys/b").await;
    server.send("HEAD", "/keys/a", &["If-None-Match: *"], b"").await;
    server.send("PUT", "/keys/a", &["If-None-Match: *"], b"1").await;
    server.send("DELETE", "/keys/a", &[], b"").await;
    server.get("/keys").await;
    for (operation, result) in [
        ("put_key", "stored"),
        ("get_key", "hit"),
        ("get_key", "miss"),
        ("head_key", "not_modified"),
        ("put_key", "condition_failed"),
        ("delete_key", "deleted"),
        ("list_keys", "hit"),
    ] {
        let line = format!("cairn_operations_total{{operation=\"{operation}\",result=\"{result}\"}}");
        assert!((server.metric(&line) - 1.0).abs() < f64::EPSILON, "{line}");
    }
    assert!(server.metric("cairn_operation_duration_seconds_count{operation=\"get_key\"}") > 1.5);
}
