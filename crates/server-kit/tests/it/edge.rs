use std::time::Duration;

use actix_web::{
    App,
    body::{BoxBody, to_bytes},
    dev::{Service, ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    test::{TestRequest, init_service},
};
use cairn_api_spec::{ApiError, ErrorCode, error::Problem};
use cairn_server_kit::{
    http::{Edge, HttpError, Pace},
    metrics::new_registry,
    server::{bind, serve_metrics},
};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::harness::{TestServer, until_closed};

async fn problem(reply: Response) -> Problem {
    let status = reply.status().as_u16();
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    let problem: Problem = reply.json().await.unwrap();
    assert_eq!((problem.status, problem.r#type.as_str(), problem.trace_id.len()), (status, "about:blank", 32));
    problem
}

#[tokio::test]
async fn every_error_is_a_problem_document_whoever_made_it() {
    let server = TestServer::plain().await;
    let json =
        |body: &'static str| server.request("POST", "/json").header("content-type", "application/json").body(body);
    for (request, status, code, detail) in [
        (server.request("GET", "/nowhere"), 404, ErrorCode::RouteNotFound, "/nowhere"),
        (server.request("DELETE", "/method"), 405, ErrorCode::MethodNotAllowed, "DELETE"),
        (server.request("POST", "/json").body("{}"), 415, ErrorCode::UnsupportedMediaType, "application/json"),
        (json("{"), 400, ErrorCode::InvalidBody, "line 1 column 1"),
        (json(r#"{"name":5}"#), 400, ErrorCode::InvalidBody, "expected a string at line 1 column 9"),
        (json("{}"), 400, ErrorCode::InvalidBody, "missing field `name`"),
        (server.request("GET", "/query"), 400, ErrorCode::InvalidParameter, "missing field `name`"),
        (server.request("GET", "/path/300"), 400, ErrorCode::InvalidParameter, "300"),
        (server.request("GET", "/bare/404"), 404, ErrorCode::RouteNotFound, "Not Found"),
        (server.request("GET", "/bare/418"), 418, ErrorCode::BadRequest, "teapot"),
        (server.request("GET", "/bare/500"), 500, ErrorCode::Internal, "Internal Server Error"),
        (server.request("GET", "/bare/503"), 503, ErrorCode::Overloaded, "Service Unavailable"),
        (server.request("GET", "/missing"), 404, ErrorCode::KeyNotFound, "no value"),
        (server.request("GET", "/overloaded"), 503, ErrorCode::Overloaded, "too much"),
    ] {
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code), (status, code), "{problem:?}");
        assert!(problem.detail.contains(detail), "{problem:?}");
    }
}

#[tokio::test]
async fn an_explanation_does_not_quote_the_request_without_bound() {
    let server = TestServer::plain().await;
    let body = format!("\"{}\"", "x".repeat(100_000));
    let request = server.request("POST", "/json").header("content-type", "application/json").body(body);
    assert!(problem(request.send().await.unwrap()).await.detail.len() < 1_000);
}

#[tokio::test]
async fn the_trace_id_is_the_clients_or_a_new_one() {
    let server = TestServer::plain().await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = |traceparent: String| server.request("GET", "/nowhere").header("traceparent", traceparent).send();
    assert_eq!(problem(traced(format!("00-{id}-00f067aa0ba902b7-01")).await.unwrap()).await.trace_id, id);
    let first = problem(traced("nonsense".to_owned()).await.unwrap()).await.trace_id;
    let second = problem(traced("nonsense".to_owned()).await.unwrap()).await.trace_id;
    assert_ne!(first, second);
}

#[tokio::test]
async fn an_error_keeps_its_version_and_tells_when_to_retry() {
    let server = TestServer::plain().await;
    let missing = server.request("GET", "/missing").send().await.unwrap();
    assert_eq!(missing.headers()["etag"], "\"7\"");
    let overloaded = server.request("GET", "/overloaded").send().await.unwrap();
    assert_eq!(overloaded.headers()["retry-after"], "9");
    assert_eq!(problem(overloaded).await.retry_after, Some(9));
    let bare = server.request("GET", "/bare/503").send().await.unwrap();
    assert_eq!(bare.headers()["retry-after"], "1");
}

#[tokio::test]
async fn an_error_has_no_body_for_head() {
    let server = TestServer::plain().await;
    let mut stream = server.connect().await;
    let request = b"HEAD /missing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = until_closed(&mut stream, request).await;
    assert!(reply.starts_with("HTTP/1.1 404") && reply.contains("etag: \"7\"\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
}

#[tokio::test]
async fn a_client_above_its_rate_waits_and_is_served_again() {
    let server = TestServer::start(5, Pace::default()).await;
    let mut refused = None;
    for n in 0..50 {
        // The client's own words about where it comes from change nothing.
        let request = server.request("GET", "/ok").header("x-forwarded-for", format!("10.0.0.{n}"));
        let reply = request.send().await.unwrap();
        if reply.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("the fiftieth request at once is one too many");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused).await.code, ErrorCode::RateLimited);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.request("GET", "/ok").send().await.unwrap().status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "the client stays refused");
    }
}

#[tokio::test]
async fn requests_and_errors_are_counted() {
    let server = TestServer::plain().await;
    for (method, path) in [("GET", "/ok"), ("DELETE", "/method"), ("BREW", "/ok"), ("GET", "/bare/500")] {
        server.request(method, path).send().await.unwrap();
    }
    assert_eq!(server.sample("cairn_requests_total{method=\"DELETE\"}").await, 1.0);
    assert_eq!(server.sample("cairn_requests_total{method=\"other\"}").await, 1.0);
    assert_eq!(server.sample("cairn_requests_total{method=\"PUT\"}").await, 0.0);
    assert_eq!(server.sample("cairn_requests_total{method=\"GET\"}").await, 6.0, "with those for the samples");
    assert_eq!(server.sample("cairn_errors_total{code=\"method_not_allowed\"}").await, 2.0);
    assert_eq!(server.sample("cairn_errors_total{code=\"internal\"}").await, 1.0);
    assert_eq!(server.sample("cairn_requests_in_flight").await, 1.0, "the one that asks");
}

#[tokio::test]
async fn metrics_are_text_with_build_and_process() {
    let server = TestServer::plain().await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(server.sample(&format!("cairn_build_info{{server=\"test\",version=\"{version}\"}}")).await, 1.0);
    assert!(server.sample("process_resident_memory_bytes").await > 0.0);
    let reply = server.request("GET", "/metrics").send().await.unwrap();
    assert!(reply.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn the_metrics_listener_serves_metrics_and_nothing_else() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let registry = new_registry("test").unwrap();
    Edge::new(&registry, 0).unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve_metrics(listener, registry, shutdown.clone()));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let metrics = http.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("cairn_build_info") && metrics.contains("cairn_requests_in_flight 0"), "{metrics}");
    assert_eq!(problem(http.get(url).send().await.unwrap()).await.code, ErrorCode::RouteNotFound);
    shutdown.cancel();
    timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_stops_when_told_and_frees_its_address() {
    let mut server = TestServer::plain().await;
    server.request("GET", "/ok").send().await.unwrap();
    let taken = bind(server.addr).unwrap_err().to_string();
    assert!(taken.contains(&server.addr.to_string()), "{taken}");
    server.shutdown.cancel();
    timeout(Duration::from_secs(10), &mut server.task).await.unwrap().unwrap().unwrap();
    bind(server.addr).unwrap();
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let server = TestServer::plain().await;
    let addr = server.addr;
    server.request("GET", "/ok").send().await.unwrap();
    drop(server);
    let freed = async {
        while bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), freed).await.unwrap();
}

#[actix_web::test]
async fn an_error_of_an_inner_middleware_is_a_problem_document_too() {
    let registry = new_registry("test").unwrap();
    let refuse = async |_: ServiceRequest, _: Next<BoxBody>| {
        Err::<ServiceResponse, _>(HttpError(ApiError::new(ErrorCode::StorageFull, "no room")).into())
    };
    let app = App::new().wrap(from_fn(refuse)).wrap(Edge::new(&registry, 0).unwrap());
    let app = init_service(app).await;
    let error = app.call(TestRequest::default().to_request()).await.unwrap_err();
    let body = to_bytes(error.error_response().into_body()).await.unwrap();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!((problem.status, problem.code, problem.detail.as_str()), (507, ErrorCode::StorageFull, "no room"));
}
