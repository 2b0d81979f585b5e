use std::net::{Ipv4Addr, SocketAddr};

use cairn_server_kit::healthcheck::check_live;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::harness::TestServer;

async fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn refusal(addr: SocketAddr) -> String {
    check_live(addr).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_server_that_answers_is_alive_also_when_it_listens_on_every_address() {
    let server = TestServer::plain().await;
    check_live(server.addr).await.unwrap();
    check_live((Ipv4Addr::UNSPECIFIED, server.addr.port()).into()).await.unwrap();
}

#[tokio::test]
async fn where_nobody_listens_the_reason_is_one_line() {
    let (listener, addr) = bound().await;
    drop(listener);
    let reason = refusal(addr).await;
    assert!(reason.starts_with(&format!("no answer from http://{addr}/health/live: ")), "{reason}");
    assert!(reason.contains("refused") && !reason.contains('\n'), "{reason}");
}

#[tokio::test]
async fn a_server_that_accepts_and_does_not_answer_is_not_waited_for() {
    let (_silent, addr) = bound().await;
    assert!(refusal(addr).await.contains("timed out"));
}

#[tokio::test]
async fn an_answer_other_than_200_is_told() {
    let (listener, addr) = bound().await;
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        let reply = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /ok\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(reply).await.unwrap();
    };
    let (reason, ()) = tokio::join!(refusal(addr), answer);
    assert_eq!(reason, format!("http://{addr}/health/live answered 307 Temporary Redirect"));
}
