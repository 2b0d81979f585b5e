//! How long operations take, and how they end. Every label is resolved at start, so that an observation is a few
//! relaxed atomics.

use std::{sync::Arc, time::Instant};

use actix_web::HttpResponse;
use cairn_api_spec::{ApiError, ErrorCode};
use cairn_server_kit::http::HttpError;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// Seconds.
const BUCKETS: [f64; 17] =
    [50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const KINDS: [&str; 5] = ["get", "head", "put", "delete", "list"];
const ENDS: [&str; 7] = ["hit", "miss", "stored", "deleted", "not_modified", "condition_failed", "error"];

/// The label `operation`, in the order of [`KINDS`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Get,
    Head,
    Put,
    Delete,
    List,
}

/// The label `result`, in the order of [`ENDS`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Hit,
    Miss,
    Stored,
    Deleted,
    NotModified,
    ConditionFailed,
    Error,
}

/// `cairn_operation_duration_seconds{operation}` and `cairn_operations_total{operation,result}`. Clones share them.
#[derive(Clone, Debug)]
pub struct DataMetrics(Arc<[PerKind]>);

#[derive(Debug)]
struct PerKind {
    duration: Histogram,
    ends: Vec<IntCounter>,
}

impl DataMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry already has them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Time from the head of a request to the head of its reply";
        let duration = HistogramOpts::new("cairn_operation_duration_seconds", help).buckets(BUCKETS.to_vec());
        let durations = HistogramVec::new(duration, &["operation"])?;
        let totals = Opts::new("cairn_operations_total", "Operations on keys, by how they ended");
        let totals = IntCounterVec::new(totals, &["operation", "result"])?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(totals.clone()))?;
        let per_kind = KINDS.into_iter().map(|kind| {
            let ends = ENDS.into_iter().map(|end| totals.get_metric_with_label_values(&[kind, end]));
            Ok(PerKind {
                duration: durations.get_metric_with_label_values(&[kind])?,
                ends: ends.collect::<prometheus::Result<_>>()?,
            })
        });
        Ok(Self(per_kind.collect::<prometheus::Result<_>>()?))
    }

    /// Runs an operation, observes it, and makes a reply of it also when it fails.
    pub(crate) async fn observe(
        &self,
        kind: Kind,
        operation: impl Future<Output = Result<(End, HttpResponse), ApiError>>,
    ) -> HttpResponse {
        let began = Instant::now();
        let (end, response) = operation.await.unwrap_or_else(|error| {
            let end = match error.code {
                ErrorCode::KeyNotFound => End::Miss,
                ErrorCode::PreconditionFailed => End::ConditionFailed,
                _ => End::Error,
            };
            (end, HttpResponse::from_error(HttpError(error)))
        });
        let metrics = &self.0[kind as usize];
        metrics.duration.observe(began.elapsed().as_secs_f64());
        metrics.ends[end as usize].inc();
        response
    }
}
