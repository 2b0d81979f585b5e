//! A server on a free port, and a client that sends exactly the bytes that it is told to.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{App, web};
use cairn_data_api::{Shared, configure};
use cairn_operations::{DataMetrics, SlowLog};
use cairn_server_kit::{
    http::{Budget, Edge, route_not_found},
    server::{HttpOptions, serve},
};
use prometheus::{Registry, TextEncoder};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa_actix_web::AppExt;

use crate::memory::Memory;

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) domain: Memory,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

pub(crate) async fn start() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let registry = Registry::new();
    let metrics = DataMetrics::new(&registry, SlowLog::new(Duration::ZERO)).unwrap();
    let edge = Edge::new(&registry, 0).unwrap();
    let domain = Memory::new(metrics);
    let api = domain.clone();
    let options = HttpOptions { workers: 1, shutdown_timeout: Duration::from_secs(1) };
    tokio::spawn(serve(listener, options, shutdown.clone(), move || {
        App::new()
            .wrap(edge.clone())
            .app_data(web::Data::new(Shared::new(Arc::new(api.clone()), Budget::new(64 << 20))))
            .into_utoipa_app()
            .configure(configure)
            .into_app()
            .default_service(web::to(route_not_found))
    }));
    Server { address, domain, registry, _stop: shutdown.drop_guard() }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no whole reply: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Self { status: head[9..12].parse().unwrap(), head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The version in `ETag`.
    pub(crate) fn version(&self) -> u64 {
        self.header("ETag").unwrap().trim_matches('"').parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts an error, and gives its explanation.
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["code"], code);
        problem["detail"].as_str().unwrap().to_owned()
    }
}

impl Server {
    /// Sends a request as it stands, and reads until the server closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> Response {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // A server that has refused a request need not read the rest of it.
            let _ = stream.write_all(request).await;
            let mut reply = Vec::new();
            let _ = stream.read_to_end(&mut reply).await;
            Response::parse(&reply)
        };
        timeout(DEADLINE, exchange).await.expect("the server answers in time")
    }

    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut request = head(method, target, headers);
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(&[request.as_bytes(), b"\r\n", body].concat()).await
    }

    pub(crate) async fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[], b"").await
    }

    pub(crate) async fn put(&self, target: &str, value: &str) -> Response {
        self.send("PUT", target, &[], value.as_bytes()).await
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Response {
        self.send("POST", target, &["Content-Type: application/json"], body.to_string().as_bytes()).await
    }

    /// The value of one line of `/metrics`.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        value.unwrap_or_else(|| panic!("no {line} in {text}")).trim().parse().unwrap()
    }
}

pub(crate) fn head(method: &str, target: &str, headers: &[&str]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head
}

/// A body in chunks, without its end.
pub(crate) fn chunked(value: &[u8]) -> Vec<u8> {
    let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    value.chunks(5_000).flat_map(chunk).collect()
}
