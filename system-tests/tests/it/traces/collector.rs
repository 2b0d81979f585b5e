//! A collector of traces: takes OTLP over HTTP as protobuf, and remembers the spans.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1 as proto,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use crate::support::{PATIENCE, eventually};

/// A span, and the server that it is of.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) span: proto::Span,
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

/// See the module.
pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::listen(true).await
    }

    /// One that takes connections and never answers.
    pub(crate) async fn stalled() -> Self {
        Self::listen(false).await
    }

    async fn listen(answers: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, connections) = (Arc::<Mutex<Vec<Span>>>::default(), Arc::<AtomicUsize>::default());
        let (collected, counted) = (spans.clone(), connections.clone());
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let collected = collected.clone();
                serving.spawn(async move {
                    if answers {
                        serve(stream, &collected).await;
                    } else {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, spans, connections, task: task.abort_handle() }
    }

    /// The setting of servers that send to it.
    pub(crate) fn endpoint(&self) -> &'static str {
        format!("http://{}", self.address).leak()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace, once there are some with each of these names, as many as the name stands here.
    pub(crate) async fn trace(&self, trace_id: &str, names: &[&str]) -> Vec<Span> {
        eventually("the trace is collected", PATIENCE, async || {
            let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let mut spans = self.spans();
            spans.retain(|span| hex(&span.span.trace_id) == trace_id);
            let wanted = |name: &str| names.iter().filter(|wanted| **wanted == name).count();
            let found = |name: &str| spans.iter().filter(|span| span.span.name == name).count();
            let is_whole = names.iter().all(|name| found(name) >= wanted(name));
            if is_whole { Ok(spans) } else { Err(format!("{spans:#?}")) }
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request, one connection.
async fn serve(mut stream: TcpStream, spans: &Mutex<Vec<Span>>) {
    let Some(body) = read(&mut stream).await else { return };
    let message = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    for resource_spans in message.resource_spans {
        let resource = resource_spans.resource.unwrap();
        let name = |name: &str| text(&resource.attributes, name).unwrap();
        let (service, instance) = (name("service.name"), name("service.instance.id"));
        let of_scopes = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let named = |span| Span { service: service.clone(), instance: instance.clone(), span };
        spans.lock().unwrap().extend(of_scopes.map(named));
    }
    // A server that was stopped is gone.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
}

async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("\r\ncontent-type: application/x-protobuf"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let body = &bytes[end + 4..];
        if body.len() >= length.parse().unwrap() {
            return Some(body.to_vec());
        }
    }
}
