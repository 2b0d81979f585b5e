//! The link over real sockets.
#![expect(clippy::unwrap_used, reason = "test helpers stop the test where they fail")]

use std::{sync::Arc, time::Duration};

use cairn_link::{CallError, Client, Limits, Service, serve};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Answers `wait` when told to, and everything else at once with itself.
#[derive(Default)]
struct Echo {
    arrived: Notify,
    release: Notify,
}

impl Service for Echo {
    type Request = Text;
    type Response = Text;

    async fn call(&self, request: Text) -> Text {
        if request.text == "wait" {
            self.arrived.notify_one();
            self.release.notified().await;
        }
        request
    }
}

struct Server {
    address: String,
    echo: Arc<Echo>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

async fn spawn_server(address: &str) -> Server {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (echo, shutdown) = (Arc::new(Echo::default()), CancellationToken::new());
    let task = tokio::spawn(serve(listener, echo.clone(), Limits::default(), shutdown.clone()));
    Server { address, echo, shutdown, task }
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

async fn call(client: &Client, text: Text) -> Result<Text, CallError> {
    client.call(&text, DEADLINE).await
}

#[tokio::test]
async fn many_callers_each_get_their_own_answer() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits::default());
    let calls = (0..2000).map(|i| {
        let client = client.clone();
        tokio::spawn(async move { (i, call(&client, text(&i.to_string())).await.unwrap().text) })
    });
    for task in calls.collect::<Vec<_>>() {
        let (i, answer) = task.await.unwrap();
        assert_eq!(answer, i.to_string());
    }
}

#[tokio::test]
async fn a_slow_request_holds_up_no_other() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits::default());
    let slow = tokio::spawn({
        let client = client.clone();
        async move { call(&client, text("wait")).await }
    });
    assert_eq!(call(&client, text("quick")).await.unwrap().text, "quick");
    assert!(!slow.is_finished());
    server.echo.release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().text, "wait");
}

#[tokio::test]
async fn a_silent_peer_costs_the_deadline_and_then_the_connection() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits::default());
    let error = client.call::<Text>(&text("wait"), Duration::from_millis(100)).await.unwrap_err();
    assert!(error.was_sent(), "{error}");
    assert_eq!(call(&client, text("again")).await.unwrap().text, "again");
}

#[tokio::test]
async fn more_than_the_limit_in_flight_is_refused_before_it_is_sent() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits { max_in_flight: 1, ..Limits::default() });
    let slow = tokio::spawn({
        let client = client.clone();
        async move { call(&client, text("wait")).await }
    });
    server.echo.arrived.notified().await;
    let error = call(&client, text("x")).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded(_)) && !error.was_sent());
    server.echo.release.notify_one();
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_is_sent() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits { max_message_bytes: 10, ..Limits::default() });
    let error = call(&client, text("more than ten bytes")).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge(_)));
}

#[tokio::test]
async fn shutdown_answers_what_is_in_flight_and_a_new_server_is_found_again() {
    let server = spawn_server("127.0.0.1:0").await;
    let client = Client::new(&server.address, Limits::default());
    let slow = tokio::spawn({
        let client = client.clone();
        async move { call(&client, text("wait")).await }
    });
    server.echo.arrived.notified().await;
    server.shutdown.cancel();
    server.echo.release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().text, "wait");
    server.task.await.unwrap().unwrap();

    let again = spawn_server(&server.address).await;
    let answer = loop {
        match call(&client, text("hello")).await {
            Ok(answer) => break answer,
            // The old connection may be noticed only by this call.
            Err(CallError::Broken(_) | CallError::Unreachable { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(answer.text, "hello");
    drop(again);
}

#[tokio::test]
async fn nobody_listening_is_told_apart_from_nobody_answering() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = call(&Client::new(&address, Limits::default()), text("x")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }) && !error.was_sent());
}

#[tokio::test]
async fn a_stranger_or_a_frame_over_the_limit_is_cut_off() {
    let server = spawn_server("127.0.0.1:0").await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"cairn/1\n\xff\xff\xff\xff\0\0\0\0", b"cairn/1\n\0\0\0\x06\0\0\0\0\xff\xff"]
    {
        let mut socket = tokio::net::TcpStream::connect(&server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
    }
}
