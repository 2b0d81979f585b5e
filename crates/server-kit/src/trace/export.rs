//! Spans on their way to the collector: a bounded queue, and one task that sends what has gathered.
//!
//! Nobody waits for it. What does not fit the queue, and what the collector does not take, is dropped and counted.

use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use prometheus::{IntCounter, Registry};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Spans that may wait, and spans of one message.
const MAX_WAITING: usize = 8_192;
const MAX_BATCH: usize = 512;
/// How long spans gather.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the server may be held up by what still waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// A collector that is away is told of this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What became of spans.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    exported: IntCounter,
    dropped: IntCounter,
}

impl Counts {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            exported: counter("cairn_spans_exported_total", "Spans that the trace collector took")?,
            dropped: counter(
                "cairn_spans_dropped_total",
                "Spans dropped because too many waited or the trace collector did not take them",
            )?,
        })
    }
}

/// Ended spans on their way to the task.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Counts,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What sends a server's spans. Dropping it stops it at once.
#[derive(Debug, Default)]
pub struct Exporter(Option<(CancellationToken, AbortOnDropHandle<()>)>);

impl Exporter {
    /// Sends what still waits, for a second at most.
    pub async fn finish(self) {
        if let Some((stop, task)) = self.0 {
            stop.cancel();
            // What is late is lost, and so is why.
            let _ = timeout(FLUSH_TIMEOUT, task).await;
        }
    }
}

/// A queue, and the task that empties it.
pub(super) fn start(endpoint: &str, resource: &Resource, counts: Counts) -> reqwest::Result<(Queue, Exporter)> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND_TIMEOUT)
        .build()?;
    let (sender, spans) = mpsc::channel(MAX_WAITING);
    let task = Task {
        spans,
        client,
        url: format!("{endpoint}/v1/traces"),
        resource: resource.into(),
        counts: counts.clone(),
        complained: None,
    };
    let stop = CancellationToken::new();
    let task = AbortOnDropHandle::new(tokio::spawn(task.run(stop.clone())));
    Ok((Queue { spans: sender, counts }, Exporter(Some((stop, task)))))
}

struct Task {
    spans: mpsc::Receiver<SpanData>,
    client: reqwest::Client,
    url: String,
    resource: ResourceAttributesWithSchema,
    counts: Counts,
    complained: Option<Instant>,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        while stop.run_until_cancelled(self.spans.recv_many(&mut batch, MAX_BATCH)).await.is_some_and(|count| count > 0)
        {
            let is_all = batch.len() < MAX_BATCH;
            self.send(std::mem::take(&mut batch)).await;
            // What ends meanwhile gathers, and wakes nobody.
            if is_all {
                stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
            }
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
            if batch.len() == MAX_BATCH || self.spans.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let message = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let request = self.client.post(&self.url).header("content-type", "application/x-protobuf").body(message);
        match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => self.counts.exported.inc_by(count),
            Err(error) => {
                self.counts.dropped.inc_by(count);
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                    self.complained = Some(Instant::now());
                    // Whoever can set the URL may have put a password into it.
                    let error = error.without_url();
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, spans = count, "the trace collector does not take spans; they are dropped");
                }
            }
        }
    }
}
