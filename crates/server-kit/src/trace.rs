//! Traces: what each process did for a request, as spans that share the request's trace, on their way to a collector.
//!
//! A server has a [`Tracer`] of its own, passed to whoever needs it, and each part of a request says explicitly which
//! span caused it ([`TraceContext`]): tasks that serve many requests at a time, as ours do, have no one current span.
//! That is also what makes it free: where there is no context, or no collector, a [`Span`] is a null pointer.

mod export;

use cairn_api_spec::{TraceContext, TraceId as Id, trace::SpanId as OwnId};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use prometheus::Registry;

pub use self::export::Exporter;
use crate::config::Common;

/// Why tracing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A metric could not be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The HTTP client could not be set up.
    #[error(transparent)]
    HttpClient(#[from] reqwest::Error),
}

/// Makes a server's spans. Clones share its way to the collector; the default has none, and makes no spans.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<SdkTracer>);

impl Tracer {
    /// The tracer of the server `service` whose name among its like is `instance`, and what sends its spans, to be
    /// finished at the end. Registers `cairn_spans_exported_total` and `cairn_spans_dropped_total`. Must be called on
    /// a Tokio runtime.
    ///
    /// # Errors
    /// When the registry has the metrics already, or the HTTP client cannot be set up.
    pub fn start(
        settings: &Common,
        service: &'static str,
        instance: &str,
        registry: &Registry,
    ) -> Result<(Self, Exporter), TraceError> {
        let counts = export::Counts::new(registry)?;
        let Some(endpoint) = &settings.otel_endpoint else { return Ok((Self::default(), Exporter::default())) };
        let attributes = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        let (queue, exporter) = export::start(endpoint, &resource, counts)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.otel_sample_ratio))))
            .with_span_processor(queue)
            .build();
        Ok((Self(Some(provider.tracer("cairn"))), exporter))
    }

    /// Whether there is a collector.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span of this process for a request: in the trace that the client names, if it is recorded; in a new
    /// one, or none, as the dice fall, when the client names none.
    pub fn begin(&self, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        match (&self.0, parent) {
            (Some(tracer), None) => Span::start(tracer, name, kind, &Context::new()),
            _ => self.child(name, kind, parent),
        }
    }

    /// A span that another one caused. None without that, or when its trace is not recorded.
    pub fn child(&self, name: &'static str, kind: SpanKind, parent: Option<TraceContext>) -> Span {
        match (&self.0, parent) {
            (Some(tracer), Some(parent)) if parent.sampled => Span::start(tracer, name, kind, &context_of(parent)),
            _ => Span::default(),
        }
    }
}

fn context_of(parent: TraceContext) -> Context {
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from_bytes(parent.trace_id.get().to_be_bytes()),
        SpanId::from_bytes(parent.span_id.get().to_be_bytes()),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    ))
}

/// A part of a trace, which ends when it is dropped; or nothing, which costs nothing.
#[derive(Debug, Default)]
#[must_use = "it ends when it is dropped"]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

impl Span {
    fn start(tracer: &SdkTracer, name: &'static str, kind: SpanKind, parent: &Context) -> Self {
        let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), parent);
        Self(span.span_context().is_sampled().then(|| Box::new(span)))
    }

    /// What this span causes, if it is one.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        Some(TraceContext {
            trace_id: Id::new(u128::from_be_bytes(context.trace_id().to_bytes()))?,
            span_id: OwnId::new(u64::from_be_bytes(context.span_id().to_bytes()))?,
            sampled: true,
        })
    }

    /// Adds an attribute. Nothing that tells of people: no key, no value.
    pub fn set(&mut self, name: &'static str, value: &str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value.to_owned()));
        }
    }

    /// Adds an attribute that is a number.
    pub fn set_number(&mut self, name: &'static str, value: i64) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Gives it the name that is known only at its end.
    pub fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.0 {
            span.update_name(name);
        }
    }

    /// Marks it as failed.
    pub fn fail(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why));
        }
    }
}
