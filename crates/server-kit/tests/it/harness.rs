//! A server on a free port, and raw requests for what an HTTP client would not send.

use std::{net::SocketAddr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use cairn_api_spec::{ApiError, ErrorCode, Version};
use cairn_server_kit::{
    http::{Budget, Edge, HttpError, Pace, extractors, read_body_at, route_not_found},
    metrics::{new_registry, render},
    server::{HttpOptions, bind, serve},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The longest body that `/echo` takes.
pub(crate) const LIMIT: usize = 100_000;

pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) http: reqwest::Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/ok", web::get().to(async || "ok"))
        .route("/health/live", web::get().to(async || "ok"))
        .route("/method", web::put().to(async || "put"))
        .route("/json", web::post().to(async |body: web::Json<Named>| body.into_inner().name))
        .route("/query", web::get().to(async |query: web::Query<Named>| query.into_inner().name))
        .route("/path/{number}", web::get().to(async |number: web::Path<u8>| number.to_string()))
        .route(
            "/bare/{status}",
            web::get().to(async |status: web::Path<u16>| {
                HttpResponse::build(StatusCode::from_u16(*status).unwrap()).body("bare")
            }),
        )
        .route("/missing", web::route().to(async || HttpError(ApiError::key_not_found(Version(7)))))
        .route(
            "/overloaded",
            web::get().to(async || {
                let error = ApiError { retry_after: Some(9), ..ApiError::new(ErrorCode::Overloaded, "too much") };
                Err::<HttpResponse, _>(HttpError(error))
            }),
        );
}

impl TestServer {
    pub(crate) async fn start(rate_limit: u32, pace: Pace) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let registry = new_registry("test").unwrap();
        let edge = Edge::new(&registry, rate_limit).unwrap().with_pace(pace);
        let shutdown = CancellationToken::new();
        let options = HttpOptions { workers: 1, shutdown_timeout: Duration::from_secs(5) };
        let task = tokio::spawn(serve(listener, options, shutdown.clone(), move || {
            let registry = registry.clone();
            let echo = move |request: HttpRequest, mut payload: web::Payload| async move {
                let length = request.headers().get("content-length");
                let declared = length.map(|length| length.to_str().unwrap().parse().unwrap());
                read_body_at(pace, &Budget::new(64 << 20), &mut payload, declared, LIMIT).await.map_err(HttpError)
            };
            actix_web::App::new()
                .wrap(edge.clone())
                .configure(extractors)
                .configure(routes)
                .route("/echo", web::put().to(echo))
                .route(
                    "/metrics",
                    web::get().to(move || {
                        let registry = registry.clone();
                        async move { render(&registry) }
                    }),
                )
                .default_service(web::to(route_not_found))
        }));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
        Self { addr, http, shutdown, task }
    }

    pub(crate) async fn plain() -> Self {
        Self::start(0, Pace::default()).await
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method.parse().unwrap(), format!("http://{}{path}", self.addr))
    }

    /// The value of one sample of `/metrics`, such as `cairn_errors_total{code="internal"}`.
    pub(crate) async fn sample(&self, name: &str) -> f64 {
        let text = self.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.trim().parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }
}

/// Sends bytes and reads until the server closes.
pub(crate) async fn until_closed(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut reply = Vec::new();
    timeout(Duration::from_secs(10), stream.read_to_end(&mut reply)).await.expect("the server closes").unwrap();
    String::from_utf8(reply).unwrap()
}
