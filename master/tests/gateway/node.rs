//! A node that answers as it is told, and can be killed and started again.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_api_spec::{
    ApiError, ErrorCode, Outcome, Version,
    cluster::RegisterNode,
    operation::{Metadata, Tier},
    peer::{Execute, ExecuteBatch, ExecutedBatch, Listed, Request, RequestKind, Response, ResponseKind},
};
use cairn_link::{Limits, Service, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

pub(crate) enum Answer {
    Reply(Response),
    /// Never answers.
    Hang,
}

pub(crate) fn done(outcome: Outcome) -> Answer {
    Answer::Reply(Response { kind: Some(ResponseKind::Executed(outcome.into())) })
}

pub(crate) fn failed(code: ErrorCode) -> Answer {
    Answer::Reply(Response::failed(ApiError::new(code, "as told")))
}

pub(crate) fn stored() -> Answer {
    done(Outcome::Stored { created: true, metadata: metadata(0) })
}

pub(crate) fn found(tier: Tier) -> Answer {
    done(Outcome::Found { metadata: metadata(5), tier, value: Some("value".into()) })
}

/// What a node says of a value that does not fit a frame.
pub(crate) fn found_large() -> Answer {
    done(Outcome::Found { metadata: metadata(LARGE as u64), tier: Tier::Memory, value: None })
}

fn metadata(size: u64) -> Metadata {
    Metadata { version: Version(7), modified_at: 0, expires_at: None, size, content_type: String::new() }
}

pub(crate) const LARGE: usize = 2 << 20;

type Script = dyn FnMut(&Execute) -> Answer + Send;

struct Shared {
    script: Mutex<Box<Script>>,
    seen: Mutex<Vec<Execute>>,
    http_seen: Mutex<Vec<String>>,
    http_hangs: AtomicBool,
    batches: Mutex<usize>,
}

pub(crate) struct FakeNode {
    pub(crate) id: &'static str,
    peer: SocketAddr,
    http: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl FakeNode {
    pub(crate) fn start(id: &'static str, script: impl FnMut(&Execute) -> Answer + Send + 'static) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let shared = Shared {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            http_seen: Mutex::default(),
            http_hangs: AtomicBool::new(false),
            batches: Mutex::default(),
        };
        let mut node = Self { id, peer: any, http: any, shared: Arc::new(shared), runtime: None };
        node.run();
        node
    }

    /// Listens, at the same addresses as before.
    pub(crate) fn run(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bind = |address: &mut SocketAddr| {
            let listener = TcpListener::bind(*address).unwrap();
            *address = listener.local_addr().unwrap();
            listener.set_nonblocking(true).unwrap();
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).unwrap()
        };
        let (peer, http) = (bind(&mut self.peer), bind(&mut self.http));
        let service = Arc::new(Peer(self.shared.clone()));
        runtime.spawn(serve(peer, service, Limits::default(), CancellationToken::new()));
        let shared = self.shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                tokio::spawn(answer_http(stream, shared.clone()));
            }
        });
        self.runtime = Some(runtime);
    }

    /// Closes every connection and both listeners.
    pub(crate) async fn kill(&mut self) {
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }

    pub(crate) fn registration(&self) -> RegisterNode {
        RegisterNode {
            node_id: self.id.to_owned(),
            incarnation: 1,
            session: 1,
            address: format!("http://{}", self.http),
            peer_address: self.peer.to_string(),
            weight: 1.0,
            zone: None,
        }
    }

    /// Lets it take requests over HTTP without an answer.
    pub(crate) fn hang_http(&self) {
        self.shared.http_hangs.store(true, Ordering::Relaxed);
    }

    /// The operations that came over the link.
    pub(crate) fn seen(&self) -> Vec<Execute> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many messages came with several operations.
    pub(crate) fn batches(&self) -> usize {
        *self.shared.batches.lock().unwrap()
    }

    /// The heads of the requests that came over HTTP.
    pub(crate) fn http_seen(&self) -> Vec<String> {
        self.shared.http_seen.lock().unwrap().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Each operation as the script tells; one that hangs holds up all.
    fn answer_batch(&self, batch: ExecuteBatch) -> Answer {
        *self.batches.lock().unwrap() += 1;
        let mut answers = Vec::new();
        for execute in batch.operations {
            self.seen.lock().unwrap().push(execute.clone());
            let result: Result<Outcome, ApiError> = match (self.script.lock().unwrap())(&execute) {
                Answer::Reply(Response { kind: Some(ResponseKind::Executed(executed)) }) => executed.try_into(),
                Answer::Reply(Response { kind: Some(ResponseKind::Failed(failed)) }) => Err(failed.into()),
                Answer::Reply(_) => panic!("the script answers operations"),
                Answer::Hang => return Answer::Hang,
            };
            answers.push(result.into());
        }
        Answer::Reply(Response { kind: Some(ResponseKind::ExecutedBatch(ExecutedBatch { answers })) })
    }
}

struct Peer(Arc<Shared>);

impl Service for Peer {
    type Request = Request;
    type Response = Response;

    async fn call(&self, request: Request) -> Response {
        let answer = match request.kind {
            Some(RequestKind::Execute(execute)) => {
                self.0.seen.lock().unwrap().push(execute.clone());
                (self.0.script.lock().unwrap())(&execute)
            }
            Some(RequestKind::ExecuteBatch(batch)) => self.0.answer_batch(batch),
            Some(RequestKind::List(_)) => {
                Answer::Reply(Response { kind: Some(ResponseKind::Listed(Listed::default())) })
            }
            _ => panic!("the gateway asks for nothing else"),
        };
        match answer {
            Answer::Reply(response) => response,
            Answer::Hang => std::future::pending().await,
        }
    }
}

/// One request: a put is stored, a get finds a large value.
async fn answer_http(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    let head = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            bytes.drain(..end + 4);
            break head;
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let is_put = head.starts_with("put");
    shared.http_seen.lock().unwrap().push(head);
    while bytes.len() < length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if shared.http_hangs.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    let (status, body) = if is_put { ("201 Created", String::new()) } else { ("200 OK", "x".repeat(LARGE)) };
    let reply = format!(
        "HTTP/1.1 {status}\r\nETag: \"7\"\r\nCache-Status: a; hit; detail=replica\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    // The master may be gone.
    let _ = stream.write_all(reply.as_bytes()).await;
}
