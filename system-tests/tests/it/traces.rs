//! Traces, and the log lines that belong to them.

mod collector;

use std::time::Duration;

use bytes::Bytes;
use cairn_api_spec::ErrorCode;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;

use self::collector::{Collector, Span};
use crate::support::{Cluster, Mode, PATIENCE, Reply, Setup, eventually, key_url, sends_problem};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: [u8; 8] = [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31];
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01";
/// No attribute of a span may have it.
const KEY: &str = "alice@example.com";
/// What an orchestrator waits before it kills.
const GRACE: Duration = Duration::from_secs(10);

type Settings = &'static [(&'static str, &'static str)];

/// With few partitions, which are served sooner.
fn settings(settings: &[(&'static str, &'static str)]) -> Settings {
    [settings, &[("PARTITIONS", "16")]].concat().leak()
}

async fn send(cluster: &Cluster, method: Method, server: &str, query: &str, traceparent: &str) -> Reply {
    let url = format!("{}{query}", key_url(server, KEY));
    let body = if method == Method::PUT { Bytes::from_static(b"value") } else { Bytes::new() };
    cluster.client.send(method, &url, &[("traceparent", traceparent)], body).await.unwrap()
}

/// The one span of a server with this name and `cairn.operation`.
fn the<'a>(spans: &'a [Span], instance: &str, name: &str, operation: Option<&str>) -> &'a Span {
    let is_it = |span: &&Span| {
        let of_operation = operation.is_none() || span.attribute("cairn.operation").as_deref() == operation;
        span.instance == instance && span.span.name == name && of_operation
    };
    let found: Vec<_> = spans.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} of {instance}: {spans:#?}");
    found[0]
}

fn is_caused_by(span: &Span, cause: &Span) {
    assert_eq!(span.span.parent_span_id, cause.span.span_id, "{span:#?} of {cause:#?}");
    let (begins, ends) = (span.span.start_time_unix_nano, span.span.end_time_unix_nano);
    assert!(cause.span.start_time_unix_nano <= begins && begins <= ends, "{span:#?} of {cause:#?}");
}

fn tells(span: &Span, kind: SpanKind, attributes: &[(&str, &str)]) {
    assert_eq!(span.span.kind, kind as i32, "{span:#?}");
    for (name, value) in attributes {
        assert_eq!(span.attribute(name).as_deref(), Some(*value), "{name} of {span:#?}");
    }
}

/// The span that caused another one.
fn cause_of<'a>(spans: &'a [Span], span: &Span) -> &'a Span {
    let cause = spans.iter().find(|cause| cause.span.span_id == span.span.parent_span_id);
    let cause = cause.unwrap_or_else(|| panic!("no cause of {span:#?} in {spans:#?}"));
    is_caused_by(span, cause);
    cause
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_one_trace_from_the_client_over_the_master_and_the_primary_to_the_replica() {
    let collector = Collector::start().await;
    let common = settings(&[("OTEL_ENDPOINT", collector.endpoint()), ("MIN_IN_SYNC", "2")]);
    let cluster = Cluster::start(Setup { nodes: 2, master: common, node: common, ..Setup::default() }).await;
    cluster.settled().await;
    // Refused while the replica is not in sync; each attempt is a trace of its own.
    let mut attempts = 0;
    let (trace_id, status) = eventually("the put is taken", PATIENCE, async || {
        attempts += 1;
        let trace_id = format!("{attempts:032x}");
        let traceparent = format!("00-{trace_id}-b7ad6b7169203331-01");
        let reply = send(&cluster, Method::PUT, cluster.url(), "", &traceparent).await;
        if reply.is_stored() { Ok((trace_id, reply.status.to_string())) } else { Err(format!("{reply:?}")) }
    })
    .await;

    let whole = ["PUT /keys/{key}", "forward", "execute", "disk", "replicate", "store"];
    let spans = collector.trace(&trace_id, &whole).await;
    assert!(!format!("{spans:?}").contains("alice"), "a key stands in a span: {spans:#?}");
    let store = spans.iter().find(|span| span.span.name == "store").unwrap();
    let replicate = cause_of(&spans, store);
    let execute = cause_of(&spans, replicate);
    let forward = cause_of(&spans, execute);
    let edge = cause_of(&spans, forward);
    assert_eq!(edge.span.parent_span_id, CALLER);
    let names = [edge, forward, execute, replicate, store].map(|span| span.span.name.as_str());
    assert_eq!(names, ["PUT /keys/{key}", "forward", "execute", "replicate", "store"]);
    let services = [edge, forward, execute, replicate, store].map(|span| span.service.as_str());
    assert_eq!(services, ["cairn-master", "cairn-master", "cairn-node", "cairn-node", "cairn-node"]);

    let (primary, replica) = (execute.instance.as_str(), store.instance.as_str());
    assert!(primary != replica && replicate.instance == primary);
    let http = [("http.request.method", "PUT"), ("http.route", "/keys/{key}"), ("http.response.status_code", &*status)];
    tells(edge, SpanKind::Server, &http);
    tells(edge, SpanKind::Server, &[("cairn.bucket", "default"), ("cairn.node", primary)]);
    tells(forward, SpanKind::Client, &[("cairn.node", primary), ("cairn.operation", "put_key")]);
    tells(execute, SpanKind::Server, &[("cairn.operation", "put_key"), ("cairn.bucket", "default")]);
    tells(replicate, SpanKind::Client, &[("cairn.node", replica)]);
    tells(store, SpanKind::Server, &[]);
    let is_write =
        |span: &&Span| span.span.name == "disk" && span.attribute("cairn.operation").as_deref() == Some("write");
    let disk = spans.iter().find(is_write).unwrap();
    assert_eq!(cause_of(&spans, disk).span.span_id, execute.span.span_id);
    tells(disk, SpanKind::Internal, &[]);
}

/// A node that holds next to nothing above the object store, and [`KEY`] that is only there.
async fn with_a_cold_key(common: &[(&'static str, &'static str)]) -> Cluster {
    let node = settings(&[common, &[("LRU_SIZE", "64"), ("DISK_MAX_BYTES", "64KiB")]].concat());
    let master = settings(common);
    let cluster = Cluster::start(Setup { nodes: 1, object_store: true, node, master, ..Setup::default() }).await;
    let cold = [(KEY.to_owned(), "value".to_owned())];
    let entries: Vec<_> = (0..300).map(|i| (format!("cold {i}"), format!("{i:01000}"))).collect();
    cluster.import(&cold).await;
    cluster.import(&entries).await;
    cluster.uploaded().await;
    cluster.offloaded().await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_from_the_object_store_has_a_span_for_each_tier_that_it_asked() {
    let collector = Collector::start().await;
    let cluster = with_a_cold_key(&[("OTEL_ENDPOINT", collector.endpoint())]).await;
    let reply = send(&cluster, Method::GET, cluster.url(), "", TRACEPARENT).await;
    assert_eq!((reply.status, reply.tier().as_str()), (200, "object"));
    let whole = ["GET /keys/{key}", "forward", "execute", "disk", "object_store"];
    let spans = collector.trace(TRACE, &whole).await;
    let master = cluster.url().trim_start_matches("http://");
    tells(the(&spans, master, "GET /keys/{key}", None), SpanKind::Server, &[("cairn.tier", "object")]);
    let execute = the(&spans, "node-1", "execute", None);
    tells(execute, SpanKind::Server, &[("cairn.tier", "object"), ("cairn.operation", "get_key")]);
    is_caused_by(the(&spans, "node-1", "disk", Some("read")), execute);
    is_caused_by(the(&spans, "node-1", "object_store", Some("read")), execute);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_a_node_itself_finds_the_tiers_under_that_request() {
    let collector = Collector::start().await;
    let node = settings(&[("OTEL_ENDPOINT", collector.endpoint())]);
    let cluster = Cluster::start(Setup { nodes: 1, master: settings(&[]), node, ..Setup::default() }).await;
    assert_eq!(send(&cluster, Method::PUT, cluster.node_url(0), "", TRACEPARENT).await.status, 201);
    let spans = collector.trace(TRACE, &["PUT /keys/{key}", "disk", "disk"]).await;
    let edge = the(&spans, "node-1", "PUT /keys/{key}", None);
    assert_eq!(edge.span.parent_span_id, CALLER);
    is_caused_by(the(&spans, "node-1", "disk", Some("write")), edge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_caller_does_not_record_is_not_traced_and_the_rest_is_as_often_as_was_set() {
    let collector = Collector::start().await;
    let common = settings(&[("OTEL_ENDPOINT", collector.endpoint()), ("OTEL_SAMPLE_RATIO", "0")]);
    let mut cluster = Cluster::start(Setup { nodes: 1, master: common, node: common, ..Setup::default() }).await;
    let unrecorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    assert!(cluster.client.put_key(cluster.url(), KEY, "", "value").await.is_stored());
    assert!(send(&cluster, Method::PUT, cluster.url(), "", unrecorded).await.is_stored());
    assert!(send(&cluster, Method::PUT, cluster.url(), "", TRACEPARENT).await.is_stored());
    let recorded = collector.trace(TRACE, &["PUT /keys/{key}", "forward", "execute", "disk"]).await.len();
    // At its end a server sends what it still has.
    cluster.nodes[0].terminate().await;
    cluster.master.terminate().await;
    assert_eq!(collector.spans().len(), recorded, "{:#?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_dead_holds_up_neither_requests_nor_the_end() {
    let stalled = Collector::stalled().await;
    let master = settings(&[("OTEL_ENDPOINT", stalled.endpoint())]);
    // Port 9 (discard) has no listener.
    let node = settings(&[("OTEL_ENDPOINT", "http://127.0.0.1:9")]);
    let mut cluster = Cluster::start(Setup { nodes: 1, master, node, ..Setup::default() }).await;
    let entries: Vec<_> = (0..1_000).map(|i| (i.to_string(), "value".to_owned())).collect();
    cluster.import(&entries).await;
    cluster.read_back(&entries).await;
    for server in [cluster.url(), cluster.node_url(0)] {
        eventually("spans are dropped", PATIENCE, async || {
            let metrics = cluster.client.get(&format!("{server}/metrics")).await.text();
            let line = metrics.lines().find(|line| line.starts_with("cairn_spans_dropped_total ")).unwrap();
            if line.ends_with(" 0") { Err(line.to_owned()) } else { Ok(()) }
        })
        .await;
    }
    assert!(stalled.connections() > 0);
    let complaints = cluster.nodes[0].log().matches("does not take spans").count();
    assert_eq!(complaints, 1, "one line a minute is enough");
    let node = cluster.nodes[0].terminate().await;
    let master = cluster.master.terminate().await;
    for ended in [node, master] {
        assert!(ended.status.success() && ended.took < GRACE, "{} after {:?}", ended.status, ended.took);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_nothing_is_sent_whatever_else_the_environment_says() {
    let collector = Collector::start().await;
    let common = settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())]);
    let mut cluster = Cluster::start(Setup { nodes: 1, master: common, node: common, ..Setup::default() }).await;
    assert!(send(&cluster, Method::PUT, cluster.url(), "", TRACEPARENT).await.is_stored());
    cluster.nodes[0].terminate().await;
    cluster.master.terminate().await;
    assert_eq!(collector.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_inside_a_node_is_logged_there_under_the_id_that_the_client_is_told() {
    let cluster = with_a_cold_key(&[("LOG_LEVEL", "info,cairn_node::doors::link=debug")]).await;
    cluster.store().set(Mode::Failing);
    let failed = "object_store_unavailable";
    let untraced = cluster.client.get_key(cluster.url(), KEY).await;
    let traced = send(&cluster, Method::GET, cluster.url(), "", TRACEPARENT).await;
    for (reply, id) in [(untraced, None), (traced, Some(TRACE))] {
        let trace_id = sends_problem(&reply, ErrorCode::ObjectStoreUnavailable).trace_id;
        assert!(id.is_none_or(|id| id == trace_id), "{trace_id}");
        for server in [&cluster.master, &cluster.nodes[0]] {
            let log = server.log();
            let is_it = |line: &str| line.contains(&trace_id) && line.contains(failed);
            assert!(log.lines().any(is_it), "{trace_id} in the log of {}: {log}", server.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_operation_is_logged_with_what_is_known_of_it_but_its_key() {
    let common = settings(&[("SLOW_OPERATION", "1ms")]);
    let setup = Setup { nodes: 1, object_store: true, master: common, node: common, ..Setup::default() };
    let mut cluster = Cluster::start(setup).await;
    // The upload begins when the write is on the disk, and is another process's to confirm.
    assert!(send(&cluster, Method::PUT, cluster.url(), "?durability=object", TRACEPARENT).await.is_stored());
    let line = cluster.nodes[0].log_line("an operation was slow").await;
    for part in [" WARN ", "put_key", "default", "stored", "duration_ms=", TRACE, "left_out=0"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let line = cluster.master.log_line("an operation was slow").await;
    assert!(line.contains("node=\"node-1\"") && line.contains(TRACE), "{line}");
    assert!(!cluster.master.log().contains("alice") && !cluster.nodes[0].log().contains("alice"));
}
