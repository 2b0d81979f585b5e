//! Between messages and the types of the domain.

use std::time::Duration;

use super::{Execute, Executed, Failed, List, ListedRow, Response, ResponseKind, Trace};
use crate::{
    error::{ApiError, ErrorCode},
    name::EntryName,
    operation::{
        Action, Consistency, Durability, IdempotencyKey, ListQuery, ListedName, Metadata, Operation, Outcome, Put, Tier,
    },
    trace::{SpanId, TraceContext, TraceId},
    version::{Condition, Version},
};

const DURABILITIES: [Durability; 4] = [Durability::Memory, Durability::Disk, Durability::Fsync, Durability::Object];
const TIERS: [Tier; 4] = [Tier::Memory, Tier::Disk, Tier::Object, Tier::Replica];

fn unreadable(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("a peer sent a message without a readable {what}"))
}

fn to_u32(durability: Option<Durability>) -> u32 {
    durability.map_or(0, |d| d as u32 + 1)
}

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
            Condition::None => (0, Version::NONE),
            Condition::Exists => (1, Version::NONE),
            Condition::Matches(version) => (2, version),
            Condition::Absent => (3, Version::NONE),
            Condition::Differs(version) => (4, version),
        };
        let mut message = Self {
            epoch,
            name: operation.name.as_bytes().clone(),
            condition,
            condition_version: version.0,
            eventual: operation.is_eventual(),
            idempotency_key: operation.idempotency_key.map_or_else(String::new, |key| key.as_str().to_owned()),
            trace: operation.trace.map(Trace::from),
            ..Self::default()
        };
        match operation.action {
            Action::Get => {}
            Action::Head => message.action = 1,
            Action::Put(put) => {
                message.action = 2;
                message.value = put.value;
                message.content_type = put.content_type;
                message.ttl_ms = to_millis(put.ttl);
                message.durability = to_u32(put.durability);
            }
            Action::Delete { durability } => {
                message.action = 3;
                message.durability = to_u32(durability);
            }
            Action::Increment { delta, ttl, durability } => {
                message.action = 4;
                message.delta = delta;
                message.ttl_ms = to_millis(ttl);
                message.durability = to_u32(durability);
            }
            Action::Explain => message.action = 5,
        }
        message
    }

    /// The operation that the message stands for.
    ///
    /// # Errors
    /// `internal`, `invalid_key` or `invalid_parameter` when it stands for none.
    pub fn into_operation(self) -> Result<Operation, ApiError> {
        let durability = match self.durability.checked_sub(1) {
            None => None,
            Some(i) => Some(*DURABILITIES.get(i as usize).ok_or_else(|| unreadable("durability"))?),
        };
        let version = Version(self.condition_version);
        let ttl = (self.ttl_ms > 0).then(|| Duration::from_millis(self.ttl_ms));
        Ok(Operation {
            name: EntryName::from_bytes(self.name)?,
            condition: match self.condition {
                0 => Condition::None,
                1 => Condition::Exists,
                2 => Condition::Matches(version),
                3 => Condition::Absent,
                4 => Condition::Differs(version),
                _ => return Err(unreadable("condition")),
            },
            action: match self.action {
                0 => Action::Get,
                1 => Action::Head,
                2 => Action::Put(Put { value: self.value, content_type: self.content_type, ttl, durability }),
                3 => Action::Delete { durability },
                4 => Action::Increment { delta: self.delta, ttl, durability },
                5 => Action::Explain,
                _ => return Err(unreadable("action")),
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
        let of = |outcome: u32, metadata: Metadata| Self {
            outcome,
            version: metadata.version.0,
            modified_at: metadata.modified_at,
            expires_at: metadata.expires_at.unwrap_or(0),
            size: metadata.size,
            content_type: metadata.content_type,
            ..Self::default()
        };
        let bare = |outcome: u32, version: Version| Self { outcome, version: version.0, ..Self::default() };
        match outcome {
            Outcome::Found { metadata, tier, value } => Self { tier: tier as u32, value, ..of(0, metadata) },
            Outcome::Missing(version) => bare(1, version),
            Outcome::NotModified(metadata, tier) => Self { tier: tier as u32, ..of(2, metadata) },
            Outcome::Stored { created, metadata } => of(if created { 4 } else { 3 }, metadata),
            Outcome::Deleted(version) => bare(5, version),
            Outcome::ConditionFailed(version) => bare(6, version),
            Outcome::Counted { value, created, metadata } => {
                Self { counted: value, ..of(if created { 8 } else { 7 }, metadata) }
            }
            Outcome::Explained(explanation) => Self {
                // Its maps have keys that are text, and nothing else can fail.
                explanation: serde_json::to_vec(&explanation).unwrap_or_default().into(),
                ..bare(9, explanation.version)
            },
        }
    }
}

impl TryFrom<Executed> for Outcome {
    type Error = ApiError;

    fn try_from(message: Executed) -> Result<Self, ApiError> {
        let tier = TIERS.get(message.tier as usize).copied().ok_or_else(|| unreadable("tier"))?;
        let version = Version(message.version);
        let metadata = Metadata {
            version,
            modified_at: message.modified_at,
            expires_at: expiry(message.expires_at),
            size: message.size,
            content_type: message.content_type,
        };
        Ok(match message.outcome {
            0 => Self::Found { metadata, tier, value: message.value },
            1 => Self::Missing(version),
            2 => Self::NotModified(metadata, tier),
            3 => Self::Stored { created: false, metadata },
            4 => Self::Stored { created: true, metadata },
            5 => Self::Deleted(version),
            6 => Self::ConditionFailed(version),
            7 => Self::Counted { value: message.counted, created: false, metadata },
            8 => Self::Counted { value: message.counted, created: true, metadata },
            9 => Self::Explained(serde_json::from_slice(&message.explanation).map_err(|_| unreadable("explanation"))?),
            _ => return Err(unreadable("outcome")),
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
        let code = ErrorCode::ALL.iter().copied().find(|c| c.as_str() == message.code).unwrap_or(ErrorCode::Internal);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::Bucket, peer::BatchAnswer};

    fn sent(operation: Operation) -> Result<Operation, ApiError> {
        Execute::new(operation, 7).into_operation()
    }

    fn of(action: Action) -> Operation {
        Operation::new(EntryName::new(&Bucket::default(), "k").unwrap(), Condition::None, action)
    }

    #[test]
    fn consistency_and_idempotency_key_travel_with_the_operation() {
        let eventual = Operation { consistency: Consistency::Eventual, ..of(Action::Get) };
        assert_eq!(sent(eventual).unwrap().consistency, Consistency::Eventual);
        let plain = sent(of(Action::Get)).unwrap();
        assert_eq!((plain.consistency, plain.idempotency_key), (Consistency::Strong, None));
        let key = IdempotencyKey::parse("once").unwrap();
        let delete = Operation { idempotency_key: Some(key.clone()), ..of(Action::Delete { durability: None }) };
        assert_eq!(sent(delete).unwrap().idempotency_key, Some(key));
        let broken = Execute { idempotency_key: "a b".to_owned(), ..Execute::new(of(Action::Get), 7) };
        assert_eq!(broken.into_operation().unwrap_err().code, ErrorCode::InvalidParameter);
    }

    #[test]
    fn an_increment_travels_with_what_it_adds_and_comes_back_with_the_sum() {
        let (ttl, durability) = (Some(Duration::from_millis(250)), Some(Durability::Memory));
        let action = sent(of(Action::Increment { delta: i64::MIN, ttl, durability })).unwrap().action;
        let Action::Increment { delta: i64::MIN, ttl: t, durability: d } = action else { panic!("{action:?}") };
        assert_eq!((t, d), (ttl, durability));
        let metadata =
            Metadata { version: Version(1), modified_at: 2, expires_at: None, size: 2, content_type: String::new() };
        for created in [false, true] {
            let counted = Outcome::Counted { value: -7, created, metadata: metadata.clone() };
            let back = Outcome::try_from(Executed::from(counted)).unwrap();
            assert!(matches!(back, Outcome::Counted { value: -7, created: c, .. } if c == created), "{back:?}");
        }
    }

    #[test]
    fn each_operation_of_a_batch_comes_back_with_its_own_end() {
        let failed = ApiError::new(ErrorCode::NotAnInteger, "no").with_version(Version(3));
        for result in [Err(failed), Ok(Outcome::Missing(Version(4)))] {
            let back = Result::<Outcome, ApiError>::from(BatchAnswer::from(result.clone()));
            assert_eq!(format!("{back:?}"), format!("{result:?}"));
        }
        assert!(Result::<Outcome, ApiError>::from(BatchAnswer { kind: None }).is_err());
    }

    #[test]
    fn the_trace_travels_with_the_operation_and_back_with_a_failure() {
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        for trace in [None, context, context.map(|context| TraceContext { sampled: false, ..context })] {
            assert_eq!(sent(Operation { trace, ..of(Action::Get) }).unwrap().trace, trace);
            let trace_id = trace.map(|context| context.trace_id);
            let error = ApiError { trace_id, ..ApiError::new(ErrorCode::Internal, "broken") };
            assert_eq!(ApiError::from(Failed::from(error.clone())), error);
        }
    }

    #[test]
    fn every_tier_travels_with_the_outcome() {
        let metadata =
            Metadata { version: Version(1), modified_at: 2, expires_at: None, size: 0, content_type: String::new() };
        for (position, tier) in TIERS.into_iter().enumerate() {
            assert_eq!(tier as usize, position);
            let found = Outcome::Found { metadata: metadata.clone(), tier, value: None };
            let outcome = Outcome::try_from(Executed::from(found)).unwrap();
            assert!(matches!(outcome, Outcome::Found { tier: t, .. } if t == tier), "{outcome:?}");
        }
        assert!(Outcome::try_from(Executed { tier: 4, ..Executed::default() }).is_err());
    }
}
