use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    memory::{BUFFER_BYTES, MAX_VALUE_BYTES},
    server::{chunked, head, start},
};

fn value(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[tokio::test]
async fn values_of_every_length_arrive_complete_declared_or_chunked() {
    let server = start().await;
    for length in [1, BUFFER_BYTES, BUFFER_BYTES + 1, 300_000, MAX_VALUE_BYTES] {
        let value = value(length);
        let before = server.domain.seen.borrow().clone();
        assert!(server.send("PUT", "/keys/a", &[], &value).await.status < 300);
        assert!(server.get("/keys/a").await.body == value, "declared, {length}");

        let head = head("PUT", "/keys/b", &["Transfer-Encoding: chunked"]);
        let request = [head.as_bytes(), b"\r\n", &chunked(&value), b"0\r\n\r\n"].concat();
        assert!(server.raw(&request).await.status < 300);
        assert!(server.get("/keys/b").await.body == value, "chunked, {length}");

        let after = server.domain.seen.borrow().clone();
        let streamed = if length > BUFFER_BYTES { 2 } else { 0 };
        assert_eq!(after.streamed - before.streamed, streamed, "{length}");
        assert_eq!(after.whole - before.whole, 2 - streamed, "{length}");
    }
    assert_eq!(server.domain.seen.borrow().aborted, 0);
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_the_body_comes() {
    let server = start().await;
    let length = format!("Content-Length: {}", MAX_VALUE_BYTES + 1);
    let reply = server.raw(format!("{}\r\n", head("PUT", "/keys/a", &[&length])).as_bytes()).await;
    assert!(reply.error(413, "value_too_large").contains(&MAX_VALUE_BYTES.to_string()));
    assert_eq!(server.get("/keys/a").await.status, 404);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_without_waiting_for_its_end() {
    let server = start().await;
    let head = head("PUT", "/keys/a", &["Transfer-Encoding: chunked"]);
    let request = [head.as_bytes(), b"\r\n", &chunked(&value(MAX_VALUE_BYTES + 1))].concat();
    server.raw(&request).await.error(413, "value_too_large");
    assert_eq!(server.get("/keys/a").await.status, 404);
    assert_eq!(server.domain.seen.borrow().aborted, 1);
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let server = start().await;
    let length = format!("Content-Length: {MAX_VALUE_BYTES}");
    let reply = server.raw(format!("{}\r\n", head("PUT", "/keys/a", &[&length, "If-Match: *"])).as_bytes()).await;
    reply.error(412, "precondition_failed");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_stores_nothing() {
    let server = start().await;
    let declared = format!("Content-Length: {MAX_VALUE_BYTES}");
    let bodies = [(&*declared, value(500_000)), ("Transfer-Encoding: chunked", chunked(&value(500_000)))];
    for (aborted, (framing, body)) in bodies.into_iter().enumerate() {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(format!("{}\r\n", head("PUT", "/keys/a", &[framing])).as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        drop(client);
        let mut seen = server.domain.seen.subscribe();
        let told = seen.wait_for(|seen| seen.aborted > aborted);
        tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("the domain hears of it").unwrap();
    }
    assert_eq!(server.domain.seen.borrow().streamed, 0);
    assert_eq!(server.get("/keys/a").await.status, 404);
}
