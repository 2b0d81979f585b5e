//! What others are told of the gateway: how long operations take, which attempts they cost, and the spans of those.

use std::time::Instant;

use cairn_api_spec::{ApiError, Operation, Outcome, TraceContext, operation::ListQuery};
use cairn_operations::{
    DataMetrics, Reply,
    metrics::{Details, End, Kind},
};
use cairn_server_kit::trace::{Span, SpanKind, Tracer};
use prometheus::IntCounter;

use super::routes::Target;

/// See the module.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Of the operations.
    pub(crate) operations: DataMetrics,
    /// Counts the attempts after the first.
    pub(crate) retries: IntCounter,
    /// Makes the spans.
    pub(crate) tracer: Tracer,
}

impl Watch {
    /// The span of one attempt at one node.
    pub(super) fn span(&self, target: &Target, kind: Kind, trace: Option<TraceContext>) -> Span {
        let mut span = self.tracer.child("forward", SpanKind::Client, trace);
        span.set("cairn.operation", kind.as_str());
        span.set("cairn.node", &target.node);
        span
    }

    pub(super) fn observe(&self, operation: &Operation, began: Instant, result: &Result<Reply, ApiError>) {
        let (kind, end) = (Kind::of(&operation.action), End::of(result.as_ref().ok().map(|reply| &reply.outcome)));
        self.operations.observe(kind, began, end, || Details {
            bucket: operation.name.bucket(),
            node: match result {
                Ok(reply) => Some(&reply.node),
                Err(error) => error.node.as_deref(),
            },
            trace_id: operation.trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
    }

    /// One operation of a batch.
    pub(super) fn observe_part(&self, operation: &Operation, began: Instant, result: &Result<Outcome, ApiError>) {
        let (kind, end) = (Kind::of(&operation.action), End::of(result.as_ref().ok()));
        self.operations.observe(kind, began, end, || Details {
            bucket: operation.name.bucket(),
            node: result.as_ref().err().and_then(|error| error.node.as_deref()),
            trace_id: operation.trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
    }

    pub(super) fn observe_batch(&self, trace: Option<TraceContext>, began: Instant) {
        let trace_id = trace.map(|trace| trace.trace_id);
        self.operations.observe(Kind::Batch, began, End::Hit, || Details { trace_id, ..Details::default() });
    }

    pub(super) fn observe_list(&self, query: &ListQuery, trace: Option<TraceContext>, began: Instant, is_good: bool) {
        let end = if is_good { End::Hit } else { End::Error };
        self.operations.observe(Kind::List, began, end, || Details {
            bucket: query.bucket(),
            trace_id: trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
    }
}
