//! How long operations take, and how they end, measured where a server begins to execute one, whatever way it came in.
//! Every label is resolved at start, so that an observation is two clock reads and a few relaxed atomics.

use std::{sync::Arc, time::Instant};

use cairn_api_spec::{
    Outcome, TraceId,
    operation::{Action, Tier},
};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use crate::slow::SlowLog;

/// Seconds.
const BUCKETS: [f64; 17] =
    [50e-6, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// In the order of [`End`].
const ENDS: [&str; 7] = ["hit", "miss", "stored", "deleted", "not_modified", "condition_failed", "error"];

/// What is done: the label `operation`, named as in the OpenAPI documents. `post_key` is a `put_key`.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A read.
    Get,
    /// A read of all but the value.
    Head,
    /// A write of a value.
    Put,
    /// A deletion.
    Delete,
    /// A page of keys.
    List,
    /// An addition to a counter.
    Increment,
    /// Where a key is and why.
    Explain,
    /// Many operations, each of which counts under its own kind, too.
    Batch,
}

impl Kind {
    const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Put, Self::Delete, Self::List, Self::Increment, Self::Explain, Self::Batch];

    /// The kind of an operation on one key.
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Get => Self::Get,
            Action::Head => Self::Head,
            Action::Put(_) => Self::Put,
            Action::Delete { .. } => Self::Delete,
            Action::Increment { .. } => Self::Increment,
            Action::Explain => Self::Explain,
        }
    }

    /// The name in metrics, traces and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get_key",
            Self::Head => "head_key",
            Self::Put => "put_key",
            Self::Delete => "delete_key",
            Self::List => "list_keys",
            Self::Increment => "increment_counter",
            Self::Explain => "explain_key",
            Self::Batch => "execute_batch",
        }
    }
}

/// How it ended: the label `result`.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// A read found what it asked for, or a batch has a result for each of its operations.
    Hit,
    /// There is no such key.
    Miss,
    /// A value was stored.
    Stored,
    /// A key was removed.
    Deleted,
    /// The client has the value already.
    NotModified,
    /// The condition did not hold.
    ConditionFailed,
    /// It failed.
    Error,
}

impl End {
    /// How an operation on one key ended; without an outcome it failed.
    pub fn of(outcome: Option<&Outcome>) -> Self {
        match outcome {
            Some(Outcome::Found { .. } | Outcome::Explained(_)) => Self::Hit,
            Some(Outcome::Missing(_)) => Self::Miss,
            Some(Outcome::NotModified(..)) => Self::NotModified,
            Some(Outcome::Stored { .. } | Outcome::Counted { .. }) => Self::Stored,
            Some(Outcome::Deleted(_)) => Self::Deleted,
            Some(Outcome::ConditionFailed(_)) => Self::ConditionFailed,
            None => Self::Error,
        }
    }
}

/// What the log says of a slow operation, as far as it is known. No key: keys may tell of people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The node that it went to.
    pub node: Option<&'a str>,
    /// The tier that answered.
    pub tier: Option<Tier>,
    /// The trace that it belongs to.
    pub trace_id: Option<TraceId>,
}

/// `cairn_operation_duration_seconds{operation}`, `cairn_operations_total{operation,result}`, and the log of slow
/// operations. Clones share them.
#[derive(Clone, Debug)]
pub struct DataMetrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kinds: Vec<PerKind>,
    slow: SlowLog,
}

#[derive(Debug)]
struct PerKind {
    duration: Histogram,
    ends: Vec<IntCounter>,
}

impl DataMetrics {
    /// Registers the metrics. Operations that `slow` finds slow are logged.
    ///
    /// # Errors
    /// When the registry already has them.
    pub fn new(registry: &Registry, slow: SlowLog) -> prometheus::Result<Self> {
        let help = "How long operations on keys took, whatever way they came in";
        let duration = HistogramOpts::new("cairn_operation_duration_seconds", help).buckets(BUCKETS.to_vec());
        let durations = HistogramVec::new(duration, &["operation"])?;
        let totals = Opts::new("cairn_operations_total", "Operations on keys, by how they ended");
        let totals = IntCounterVec::new(totals, &["operation", "result"])?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(totals.clone()))?;
        let kinds = Kind::ALL.map(Kind::as_str).into_iter().map(|kind| {
            let ends = ENDS.into_iter().map(|end| totals.get_metric_with_label_values(&[kind, end]));
            Ok(PerKind {
                duration: durations.get_metric_with_label_values(&[kind])?,
                ends: ends.collect::<prometheus::Result<_>>()?,
            })
        });
        Ok(Self(Arc::new(Shared { kinds: kinds.collect::<prometheus::Result<_>>()?, slow })))
    }

    /// Observes an operation that began at `began` and ends now. `details` are asked for only when it is logged.
    pub fn observe<'a>(&self, kind: Kind, began: Instant, end: End, details: impl FnOnce() -> Details<'a>) {
        let Shared { kinds, slow } = &*self.0;
        let took = began.elapsed();
        let metrics = &kinds[kind as usize];
        metrics.duration.observe(took.as_secs_f64());
        metrics.ends[end as usize].inc();
        if slow.is_slow(took)
            && let Some(left_out) = slow.admit()
        {
            let Details { bucket, node, tier, trace_id } = details();
            let (tier, trace_id) = (tier.map(Tier::as_str), trace_id.map(tracing::field::display));
            let (operation, result) = (kind.as_str(), ENDS[end as usize]);
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(
                operation,
                bucket,
                result,
                duration_ms,
                node,
                tier,
                trace_id,
                left_out,
                "an operation was slow"
            );
        }
    }
}
