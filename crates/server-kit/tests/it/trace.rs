use cairn_api_spec::TraceContext;
use cairn_server_kit::{
    config::Common,
    trace::{Exporter, SpanKind, Tracer},
};
use clap::Parser;
use prometheus::{Registry, TextEncoder};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    common: Common,
}

/// Port 9 (discard) has no listener.
fn start(ratio: &str, registry: &Registry) -> (Tracer, Exporter) {
    let settings = ["server", "--otel-endpoint=http://127.0.0.1:9", "--otel-sample-ratio", ratio];
    Tracer::start(&Settings::parse_from(settings).common, "server", "one", registry).unwrap()
}

fn parent(sampled: bool) -> Option<TraceContext> {
    TraceContext::parse(PARENT).map(|context| TraceContext { sampled, ..context })
}

#[tokio::test]
async fn a_recorded_trace_is_followed_and_an_unrecorded_one_is_not_whatever_the_ratio() {
    for (ratio, begins) in [("0", false), ("1", true)] {
        let (tracer, _exporter) = start(ratio, &Registry::new());
        assert_eq!(tracer.begin("request", SpanKind::Server, None).context().is_some(), begins);
        assert_eq!(tracer.child("part", SpanKind::Internal, None).context(), None);
        let span = tracer.begin("request", SpanKind::Server, parent(true)).context().unwrap();
        let child = tracer.child("part", SpanKind::Internal, Some(span)).context().unwrap();
        let parent_id = parent(true).unwrap().trace_id;
        assert!(span.sampled && child.sampled && span.trace_id == parent_id && child.trace_id == parent_id);
        assert_ne!(span.span_id, child.span_id);
        assert_eq!(tracer.begin("request", SpanKind::Server, parent(false)).context(), None);
        assert_eq!(tracer.child("part", SpanKind::Internal, parent(false)).context(), None);
    }
}

#[tokio::test]
async fn without_a_collector_there_are_no_spans() {
    let common = Settings::parse_from(["server"]).common;
    let (tracer, exporter) = Tracer::start(&common, "server", "one", &Registry::new()).unwrap();
    assert!(!tracer.is_on());
    for trace in [None, parent(true), parent(false)] {
        assert_eq!(tracer.begin("request", SpanKind::Server, trace).context(), None);
    }
    exporter.finish().await;
}

/// On one thread nothing is sent before the test waits for something.
#[tokio::test]
async fn more_spans_than_may_wait_are_dropped_and_counted_and_so_are_those_that_nobody_takes() {
    let registry = Registry::new();
    let (tracer, exporter) = start("1", &registry);
    for _ in 0..10_000 {
        drop(tracer.begin("request", SpanKind::Server, None));
    }
    let dropped = || {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("cairn_spans_dropped_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(dropped(), 10_000 - 8_192);
    exporter.finish().await;
    assert!(dropped() > 10_000 - 8_192);
}
