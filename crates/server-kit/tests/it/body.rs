use std::time::Duration;

use cairn_server_kit::http::Pace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{LIMIT, TestServer, until_closed};

const HASTE: Pace = Pace { grace: Duration::from_millis(200), bytes_per_second: 1 << 30 };

#[tokio::test]
async fn bodies_of_every_length_up_to_the_limit_come_through() {
    let server = TestServer::plain().await;
    for length in [0, 1, 1_000, LIMIT] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let reply = server.request("PUT", "/echo").body(body.clone()).send().await.unwrap();
        assert_eq!(reply.bytes().await.unwrap(), body, "{length} bytes");
    }
    let mut stream = server.connect().await;
    let chunked = b"PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(until_closed(&mut stream, chunked).await.ends_with("\r\n\r\nabcde"));
}

#[tokio::test]
async fn a_connection_is_kept_after_a_chunked_body_was_read() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    let both = b"PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n\
        GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let replies = until_closed(&mut stream, both).await;
    assert_eq!(replies.matches("HTTP/1.1 200").count(), 2, "{replies}");
}

#[tokio::test]
async fn a_body_declared_too_large_is_refused_before_it_is_sent() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    let head = format!("PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", LIMIT + 1);
    let reply = until_closed(&mut stream, head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("value_too_large"), "{reply}");
}

#[tokio::test]
async fn a_chunked_body_is_refused_when_it_grows_too_large() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    let mut request = b"PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..=LIMIT / 1_000 {
        request.extend_from_slice(b"3e8\r\n");
        request.extend_from_slice(&[b'x'; 1_000]);
        request.extend_from_slice(b"\r\n");
    }
    let reply = until_closed(&mut stream, &request).await;
    assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("value_too_large"), "{reply}");
}

#[tokio::test]
async fn a_dribbled_body_is_refused_at_the_deadline_and_the_connection_closed() {
    let server = TestServer::start(0, HASTE).await;
    for request in [
        "PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
        "PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: text/JSON; a=b\r\nContent-Length: 10\r\n\r\n{",
        "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        let mut stream = server.connect().await;
        let reply = until_closed(&mut stream, request.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("request_timeout"), "{reply}");
    }
}

#[tokio::test]
async fn a_body_that_comes_with_its_head_is_not_timed() {
    let server = TestServer::start(0, Pace { grace: Duration::ZERO, bytes_per_second: 1 << 30 }).await;
    for request in [
        "PUT /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        "PUT /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        let reply = until_closed(&mut stream, request.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("abc"), "{reply}");
    }
}

#[tokio::test]
async fn a_chunked_body_that_nobody_reads_does_not_hold_the_connection() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    let request = b"GET /ok HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let reply = until_closed(&mut stream, request).await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok"), "{reply}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_invalid() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    stream.write_all(b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("invalid_body"), "{reply}");
}
