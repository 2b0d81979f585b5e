//! Between messages and the types of the domain.

use std::time::Duration;

use super::{
    AnswerKind, BatchAnswer, Execute, Executed, Failed, FirstOutcome, List, ListedRow, OutcomeKind, Response,
    ResponseKind, Trace, generated as wire,
    modes::{known, unreadable},
};
use crate::{
    error::{ApiError, ErrorCode},
    name::EntryName,
    operation::{Action, Consistency, IdempotencyKey, ListQuery, ListedName, Metadata, Operation, Outcome, Put},
    trace::{SpanId, TraceContext, TraceId},
    version::{Condition, Version},
};

/// 0 stands for none.
fn to_millis(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

fn expiry(millis: u64) -> Option<u64> {
    (millis > 0).then_some(millis)
}

impl Execute {
    /// The message for an operation, for a partition that the sender knows at `epoch`.
    pub fn new(operation: Operation, epoch: u64) -> Self {
        let (condition, version) = match operation.condition {
            Condition::None => (wire::Condition::None, Version::NONE),
            Condition::Exists => (wire::Condition::Exists, Version::NONE),
            Condition::Matches(version) => (wire::Condition::Matches, version),
            Condition::Absent => (wire::Condition::Absent, Version::NONE),
            Condition::Differs(version) => (wire::Condition::Differs, version),
        };
        let mut message = Self {
            epoch,
            name: operation.name.as_bytes().clone(),
            condition: condition.into(),
            condition_version: version.0,
            eventual: operation.is_eventual(),
            idempotency_key: operation.idempotency_key.map_or_else(String::new, |key| key.as_str().to_owned()),
            trace: operation.trace.map(Trace::from),
            ..Self::default()
        };
        message.set_durability(operation.action.durability().into());
        let action = match operation.action {
            Action::Get => wire::Action::Get,
            Action::Head => wire::Action::Head,
            Action::Put(put) => {
                message.value = put.value;
                message.content_type = put.content_type;
                message.ttl_ms = to_millis(put.ttl);
                wire::Action::Put
            }
            Action::Delete { .. } => wire::Action::Delete,
            Action::Increment { delta, ttl, .. } => {
                message.delta = delta;
                message.ttl_ms = to_millis(ttl);
                wire::Action::Increment
            }
            Action::Explain => wire::Action::Explain,
        };
        message.set_action(action);
        message
    }

    /// The operation that the message stands for.
    ///
    /// # Errors
    /// `internal`, `invalid_key` or `invalid_parameter` when it stands for none.
    pub fn into_operation(self) -> Result<Operation, ApiError> {
        let durability = known::<wire::AskedDurability>(self.durability, "durability")?.into();
        let version = Version(self.condition_version);
        let ttl = (self.ttl_ms > 0).then(|| Duration::from_millis(self.ttl_ms));
        Ok(Operation {
            name: EntryName::from_bytes(self.name)?,
            condition: match known(self.condition, "condition")? {
                wire::Condition::None => Condition::None,
                wire::Condition::Exists => Condition::Exists,
                wire::Condition::Matches => Condition::Matches(version),
                wire::Condition::Absent => Condition::Absent,
                wire::Condition::Differs => Condition::Differs(version),
            },
            action: match known(self.action, "action")? {
                wire::Action::Get => Action::Get,
                wire::Action::Head => Action::Head,
                wire::Action::Put => {
                    Action::Put(Put { value: self.value, content_type: self.content_type, ttl, durability })
                }
                wire::Action::Delete => Action::Delete { durability },
                wire::Action::Increment => Action::Increment { delta: self.delta, ttl, durability },
                wire::Action::Explain => Action::Explain,
            },
            consistency: if self.eventual { Consistency::Eventual } else { Consistency::Strong },
            idempotency_key: match self.idempotency_key.as_str() {
                "" => None,
                text => Some(IdempotencyKey::parse(text)?),
            },
            trace: self.trace.and_then(Trace::context),
        })
    }
}

impl From<Outcome> for Executed {
    fn from(outcome: Outcome) -> Self {
        let of = |outcome: OutcomeKind, metadata: Metadata| Self {
            outcome: outcome.into(),
            version: metadata.version.0,
            modified_at: metadata.modified_at,
            expires_at: metadata.expires_at.unwrap_or(0),
            size: metadata.size,
            content_type: metadata.content_type,
            ..Self::default()
        };
        let bare = |outcome: OutcomeKind, version: Version| Self {
            outcome: outcome.into(),
            version: version.0,
            ..Self::default()
        };
        match outcome {
            Outcome::Found { metadata, tier, value } => {
                Self { tier: wire::Tier::from(tier).into(), value, ..of(OutcomeKind::Found, metadata) }
            }
            Outcome::Missing(version) => bare(OutcomeKind::Missing, version),
            Outcome::NotModified(metadata, tier) => {
                Self { tier: wire::Tier::from(tier).into(), ..of(OutcomeKind::NotModified, metadata) }
            }
            Outcome::Stored { created: false, metadata } => of(OutcomeKind::Stored, metadata),
            Outcome::Stored { created: true, metadata } => of(OutcomeKind::Created, metadata),
            Outcome::Deleted(version) => bare(OutcomeKind::Deleted, version),
            Outcome::ConditionFailed(version) => bare(OutcomeKind::ConditionFailed, version),
            Outcome::Counted { value, created, metadata } => {
                let kind = if created { OutcomeKind::CountedFromNothing } else { OutcomeKind::Counted };
                Self { counted: value, ..of(kind, metadata) }
            }
            Outcome::Explained(explanation) => Self {
                // Its maps have keys that are text, and nothing else can fail.
                explanation: serde_json::to_vec(&explanation).unwrap_or_default().into(),
                ..bare(OutcomeKind::Explained, explanation.version)
            },
        }
    }
}

impl TryFrom<Executed> for Outcome {
    type Error = ApiError;

    fn try_from(message: Executed) -> Result<Self, ApiError> {
        let tier = known::<wire::Tier>(message.tier, "tier")?.into();
        let version = Version(message.version);
        let metadata = Metadata {
            version,
            modified_at: message.modified_at,
            expires_at: expiry(message.expires_at),
            size: message.size,
            content_type: message.content_type,
        };
        Ok(match known(message.outcome, "outcome")? {
            OutcomeKind::Found => Self::Found { metadata, tier, value: message.value },
            OutcomeKind::Missing => Self::Missing(version),
            OutcomeKind::NotModified => Self::NotModified(metadata, tier),
            OutcomeKind::Stored => Self::Stored { created: false, metadata },
            OutcomeKind::Created => Self::Stored { created: true, metadata },
            OutcomeKind::Deleted => Self::Deleted(version),
            OutcomeKind::ConditionFailed => Self::ConditionFailed(version),
            OutcomeKind::Counted => Self::Counted { value: message.counted, created: false, metadata },
            OutcomeKind::CountedFromNothing => Self::Counted { value: message.counted, created: true, metadata },
            OutcomeKind::Explained => {
                Self::Explained(serde_json::from_slice(&message.explanation).map_err(|_| unreadable("explanation"))?)
            }
        })
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            detail: error.detail,
            retry_after: error.retry_after,
            version: error.version.map(|v| v.0),
            trace: error.trace_id.map(Trace::of),
        }
    }
}

impl From<Failed> for ApiError {
    fn from(message: Failed) -> Self {
        let known = ErrorCode::ALL.iter().copied().find(|code| code.as_str() == message.code);
        // `internal` promises nothing, neither that nothing was done nor that another attempt may end better.
        let Some(code) = known else {
            let Failed { code, detail, .. } = &message;
            let detail = format!("a peer failed with {code:?}, which this release does not know: {detail}");
            return Self { trace_id: message.trace.and_then(Trace::id), ..Self::new(ErrorCode::Internal, detail) };
        };
        Self {
            code,
            detail: message.detail,
            retry_after: message.retry_after,
            version: message.version.map(Version),
            node: None,
            trace_id: message.trace.and_then(Trace::id),
        }
    }
}

impl Trace {
    fn of(id: TraceId) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
        let (high, low) = ((id.get() >> 64) as u64, id.get() as u64);
        Self { trace_id_high: high, trace_id_low: low, ..Self::default() }
    }

    /// The trace alone.
    pub fn id(self) -> Option<TraceId> {
        TraceId::new(u128::from(self.trace_id_high) << 64 | u128::from(self.trace_id_low))
    }

    /// The trace and the span that asks; `None` without a readable id of each. A trace decides nothing, so it is no
    /// reason to refuse a message.
    pub fn context(self) -> Option<TraceContext> {
        Some(TraceContext { trace_id: self.id()?, span_id: SpanId::new(self.span_id)?, sampled: self.sampled })
    }
}

impl From<TraceContext> for Trace {
    fn from(context: TraceContext) -> Self {
        Self { span_id: context.span_id.get(), sampled: context.sampled, ..Self::of(context.trace_id) }
    }
}

impl List {
    /// The message for a query on these partitions.
    pub fn new(query: ListQuery, partitions: Vec<u32>, trace: Option<TraceContext>) -> Self {
        let limit = u32::try_from(query.limit).unwrap_or(u32::MAX);
        Self { start: query.start, end: query.end, limit, partitions, trace: trace.map(Trace::from) }
    }

    /// The query, the partitions that it wants, and the trace that it belongs to.
    pub fn into_query(self) -> (ListQuery, Vec<u32>, Option<TraceContext>) {
        let query = ListQuery { start: self.start, end: self.end, limit: self.limit as usize };
        (query, self.partitions, self.trace.and_then(Trace::context))
    }
}

impl From<ListedName> for ListedRow {
    fn from(listed: ListedName) -> Self {
        Self {
            name: listed.name.as_bytes().clone(),
            version: listed.metadata.version.0,
            modified_at: listed.metadata.modified_at,
            expires_at: listed.metadata.expires_at.unwrap_or(0),
            size: listed.metadata.size,
        }
    }
}

impl TryFrom<ListedRow> for ListedName {
    type Error = ApiError;

    fn try_from(row: ListedRow) -> Result<Self, ApiError> {
        Ok(Self {
            name: EntryName::from_bytes(row.name)?,
            metadata: Metadata {
                version: Version(row.version),
                modified_at: row.modified_at,
                expires_at: expiry(row.expires_at),
                size: row.size,
                content_type: String::new(),
            },
        })
    }
}

impl Response {
    /// The answer for a failure.
    pub fn failed(error: ApiError) -> Self {
        Self { kind: Some(ResponseKind::Failed(error.into())) }
    }
}

impl From<Result<Outcome, ApiError>> for BatchAnswer {
    fn from(result: Result<Outcome, ApiError>) -> Self {
        let kind = match result {
            Ok(outcome) => AnswerKind::Executed(outcome.into()),
            Err(error) => AnswerKind::Failed(error.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl From<BatchAnswer> for Result<Outcome, ApiError> {
    fn from(answer: BatchAnswer) -> Self {
        match answer.kind {
            Some(AnswerKind::Executed(executed)) => executed.try_into(),
            Some(AnswerKind::Failed(failed)) => Err(failed.into()),
            None => Err(unreadable("answer")),
        }
    }
}

impl FirstOutcome {
    /// Refuses what a later attempt of the write could not be answered with.
    ///
    /// # Errors
    /// `internal`, `invalid_key` or `invalid_parameter` for what cannot be read.
    pub fn check(&self) -> Result<(), ApiError> {
        EntryName::from_bytes(self.name.clone())?;
        IdempotencyKey::parse(&self.key)?;
        known::<wire::Refusal>(self.refused, "refusal").map(|_| ())
    }
}
