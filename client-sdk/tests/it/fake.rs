//! A server that answers as it is told, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use cairn_client::ErrorCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone)]
pub(crate) enum Answer {
    /// Status line, further headers, body.
    Reply(&'static str, String, String),
    /// Closes the connection after it has read the request.
    Close,
    /// Never answers.
    Hang,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    /// The heads of requests.
    seen: Arc<Mutex<Vec<String>>>,
    /// Their bodies.
    bodies: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

type Handler = dyn Fn(&str, &str) -> Answer + Send + Sync;
type Texts = Arc<Mutex<Vec<String>>>;

impl Fake {
    /// `answer` gets the request line.
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::reading(move |line, _| answer(line)).await
    }

    /// `answer` gets the request line and the body.
    pub(crate) async fn reading(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, bodies) = (Texts::default(), Texts::default());
        let answer: Arc<Handler> = Arc::new(answer);
        let remembered = (seen.clone(), bodies.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, remembered.clone(), answer.clone()));
            }
        });
        Self { url, seen, bodies, _task: AbortOnDropHandle::new(task) }
    }

    /// Method and path of every request, but those that wait for the next map.
    pub(crate) fn seen(&self) -> Vec<String> {
        let line = |head: &String| head.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned();
        self.seen.lock().unwrap().iter().map(line).collect()
    }

    /// The same without questions for the map.
    pub(crate) fn operations(&self) -> Vec<String> {
        self.seen().into_iter().filter(|request| request != "GET /ring").collect()
    }

    /// The idempotency key of every request that has one.
    pub(crate) fn idempotency_keys(&self) -> Vec<String> {
        self.header("idempotency-key")
    }

    /// The JSON document of every request that has one.
    pub(crate) fn documents(&self) -> Vec<serde_json::Value> {
        self.bodies.lock().unwrap().iter().filter_map(|body| serde_json::from_str(body).ok()).collect()
    }

    /// A header of every request that has it.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
        self.seen.lock().unwrap().iter().filter_map(|head| head.lines().find_map(value)).collect()
    }
}

/// One request, one connection.
async fn serve(mut stream: TcpStream, (seen, bodies): (Texts, Texts), answer: Arc<Handler>) {
    let Some((head, body)) = read(&mut stream).await else { return };
    let line = head.lines().next().unwrap();
    let answer = if line.contains("wait=") {
        Answer::Hang
    } else {
        seen.lock().unwrap().push(head.clone());
        bodies.lock().unwrap().push(body.clone());
        answer(line, &body)
    };
    match answer {
        Answer::Close => {}
        Answer::Hang => std::future::pending().await,
        Answer::Reply(status, headers, body) => {
            let length =
                if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let reply = format!("HTTP/1.1 {status}\r\n{headers}{length}Connection: close\r\n\r\n{body}");
            // The client may be gone.
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    }
}

/// The head and the body, which is read in any case, so that closing does not reset the connection.
async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

pub(crate) fn problem(code: ErrorCode) -> Answer {
    problem_after(code, 0)
}

/// A refusal that asks the client to wait.
pub(crate) fn problem_after(code: ErrorCode, retry_after: u32) -> Answer {
    let status = match code.status() {
        412 => "412 Precondition Failed",
        421 => "421 Misdirected Request",
        500 => "500 Internal Server Error",
        507 => "507 Insufficient Storage",
        504 => "504 Gateway Timeout",
        _ => "503 Service Unavailable",
    };
    let code = code.as_str();
    let body = format!(
        r#"{{"type":"about:blank","title":"t","status":{},"code":"{code}","detail":"d","trace_id":"0",
            "retry_after":{retry_after}}}"#,
        &status[..3]
    );
    Answer::Reply(status, "ETag: \"7\"\r\nContent-Type: application/problem+json\r\n".to_owned(), body)
}

/// A map in which each of these nodes has one partition to itself.
pub(crate) fn ring_of(epoch: u64, addresses: &[&str]) -> Answer {
    let node = |i: usize| serde_json::json!({"node_id": format!("n{i}"), "incarnation": 1, "address": addresses[i], "peer_address": "127.0.0.1:1"});
    let partition = |i: usize| serde_json::json!({"id": i, "epoch": epoch, "primary": format!("n{i}"), "in_sync": [format!("n{i}")], "learners": []});
    let body = serde_json::json!({
        "cluster_id": 1, "epoch": epoch, "partition_count": addresses.len(), "hash": "xxh3-64",
        "nodes": (0..addresses.len()).map(node).collect::<Vec<_>>(),
        "partitions": (0..addresses.len()).map(partition).collect::<Vec<_>>(),
    });
    json(&body)
}

pub(crate) fn json(body: &serde_json::Value) -> Answer {
    Answer::Reply("200 OK", "Content-Type: application/json\r\n".to_owned(), body.to_string())
}

/// A map of one partition, which all of these nodes hold; the first is the primary.
pub(crate) fn ring(epoch: u64, addresses: &[&str]) -> Answer {
    let ids: Vec<String> = (0..addresses.len()).map(|i| format!("n{i}")).collect();
    let node = |(id, address): (&String, &&str)| serde_json::json!({"node_id": id, "incarnation": 1, "address": address, "peer_address": "127.0.0.1:1"});
    let nodes: Vec<_> = ids.iter().zip(addresses).map(node).collect();
    let body = serde_json::json!({
        "cluster_id": 1, "epoch": epoch, "partition_count": 1, "hash": "xxh3-64", "nodes": nodes,
        "partitions": [{"id": 0, "epoch": epoch, "primary": ids[0], "in_sync": ids, "learners": []}],
    });
    Answer::Reply("200 OK", "Content-Type: application/json\r\n".to_owned(), body.to_string())
}
