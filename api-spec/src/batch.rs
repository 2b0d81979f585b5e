//! Batches: many operations in one request, each with its own result.

use std::fmt;

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    MAX_FRAMED_VALUE_BYTES,
    data::TtlField,
    error::{ApiError, ErrorCode},
    modes::Durability,
    operation::Outcome,
    version::Version,
};

/// The most operations of one batch.
pub const MAX_BATCH_OPERATIONS: usize = 1_000;
/// The longest body of one batch, and the most bytes of values in its answer.
pub const MAX_BATCH_BYTES: usize = 16 << 20;
/// The longest `Idempotency-Key` of a batch: `:999` must fit behind it.
pub const MAX_BATCH_IDEMPOTENCY_KEY_BYTES: usize = 251;

/// What an operation of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchAction {
    /// Read a value.
    Get,
    /// Store a value.
    Put,
    /// Remove a key.
    Delete,
    /// Add to a counter.
    Increment,
}

/// One operation of a batch. A field that does not belong to its `op` is refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchOperation {
    /// What to do.
    pub op: BatchAction,
    /// The key's bucket; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The key, as it is (no percent-encoding here).
    pub key: String,
    /// For put: the value as text; any other JSON value is stored as its JSON text, with `application/json`.
    #[serde(default, deserialize_with = "crate::data::present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub value: Option<Box<RawValue>>,
    /// For put: the value as base64, for bytes that are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// For put: how long the value lives. For increment: how long a counter lives that is created by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlField>,
    /// For put: given back as `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// A version, or `*`, as in the header `If-Match`; the quotes may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// A version, or `*`, as in the header `If-None-Match`; the quotes may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
    /// For increment: what to add; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<i64>,
    /// For writes: what must have happened on every in-sync replica before the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// For writes: as the header `Idempotency-Key` of a request, for this operation alone, wherever it stands in a
    /// batch. It goes before what the batch's header gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl BatchOperation {
    /// An operation that says nothing but what it does, and to which key.
    pub fn new(op: BatchAction, key: String) -> Self {
        Self {
            op,
            bucket: None,
            key,
            value: None,
            value_base64: None,
            ttl: None,
            content_type: None,
            if_match: None,
            if_none_match: None,
            delta: None,
            durability: None,
            idempotency_key: None,
        }
    }
}

/// The body of `POST /batch`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operations": [
    {"op": "put", "key": "user:42", "value": "Ada", "ttl": "10m"},
    {"op": "increment", "key": "visits", "delta": 1},
    {"op": "get", "key": "user:42"},
]}))]
pub struct Batch {
    /// 1 to 1,000 operations. Those on the same key are done in this order, all others at the same time.
    #[serde(deserialize_with = "bounded")]
    #[schema(min_items = 1, max_items = 1_000)]
    pub operations: Vec<BatchOperation>,
}

/// Stops at the bound, before a long list of short operations has taken many times its length in memory.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BatchOperation>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<BatchOperation>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of 1 to {MAX_BATCH_OPERATIONS} operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut operations = Vec::new();
            while let Some(operation) = seq.next_element()? {
                if operations.len() == MAX_BATCH_OPERATIONS {
                    return Err(A::Error::custom(format!("a batch has at most {MAX_BATCH_OPERATIONS} operations")));
                }
                operations.push(operation);
            }
            if operations.is_empty() {
                return Err(A::Error::custom("a batch has at least one operation"));
            }
            Ok(operations)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchResults {
    /// One result for each operation, in their order.
    pub results: Vec<BatchResult>,
}

/// What became of one operation of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchResult {
    /// The status that the operation would have had as a request of its own.
    #[schema(example = 200)]
    pub status: u16,
    /// The key.
    #[schema(example = "user:42")]
    pub key: String,
    /// The key's version, where `ETag` would give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The value that was read, when it is text, or the sum of a counter, as decimal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Ada")]
    pub value: Option<String>,
    /// The value that was read, when it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// The content type of the value that was read; absent when it was stored without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// When the value that was read expires; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
    /// Why the operation failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<BatchProblem>,
}

/// Why an operation of a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchProblem {
    /// The stable code.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    #[schema(example = "no value is stored under this key")]
    pub detail: String,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

/// The room for values in the answer to a batch.
#[derive(Debug)]
pub struct AnswerRoom {
    left: usize,
}

impl Default for AnswerRoom {
    fn default() -> Self {
        Self { left: MAX_BATCH_BYTES }
    }
}

impl AnswerRoom {
    /// Keeps an outcome whose value fits, and refuses one that must be read by itself.
    ///
    /// # Errors
    /// `value_too_large` for a value above [`MAX_FRAMED_VALUE_BYTES`], and for one that the answer has no room for.
    pub fn admit(&mut self, outcome: Outcome) -> Result<Outcome, ApiError> {
        let Outcome::Found { value, metadata, .. } = &outcome else { return Ok(outcome) };
        let why = match value {
            Some(value) if value.len() <= MAX_FRAMED_VALUE_BYTES => match self.left.checked_sub(value.len()) {
                Some(left) => {
                    self.left = left;
                    return Ok(outcome);
                }
                None => format!("the answer to a batch has room for {MAX_BATCH_BYTES} bytes of values"),
            },
            _ => format!("a value in a batch has at most {MAX_FRAMED_VALUE_BYTES} bytes"),
        };
        let detail = format!("{why}: GET this one of {} bytes by itself", metadata.size);
        Err(ApiError::new(ErrorCode::ValueTooLarge, detail).with_version(metadata.version))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{modes::Tier, operation::Metadata};

    fn found(size: usize) -> Outcome {
        let metadata = Metadata {
            version: Version(7),
            modified_at: 1,
            expires_at: None,
            size: size as u64,
            content_type: String::new(),
        };
        Outcome::Found { metadata, tier: Tier::Memory, value: Some(Bytes::from(vec![0; size])) }
    }

    #[test]
    fn an_answer_has_room_for_sixteen_values_of_a_mebibyte_and_for_none_that_is_longer() {
        let mut room = AnswerRoom::default();
        assert_eq!(room.admit(found(MAX_FRAMED_VALUE_BYTES + 1)).unwrap_err().code, ErrorCode::ValueTooLarge);
        for _ in 0..16 {
            room.admit(found(MAX_FRAMED_VALUE_BYTES)).unwrap();
        }
        let error = room.admit(found(1)).unwrap_err();
        assert_eq!((error.code, error.version), (ErrorCode::ValueTooLarge, Some(Version(7))));
        assert!(error.detail.contains("by itself"), "{}", error.detail);
        room.admit(Outcome::Missing(Version(7))).unwrap();
    }

    #[test]
    fn a_batch_of_none_or_of_more_than_a_thousand_is_no_batch() {
        let of = |count: usize| {
            let operations = vec![BatchOperation::new(BatchAction::Get, "k".to_owned()); count];
            serde_json::from_str::<Batch>(&serde_json::to_string(&Batch { operations }).unwrap())
        };
        assert_eq!(of(1_000).unwrap().operations.len(), 1_000);
        assert!(of(1_001).unwrap_err().to_string().contains("at most 1000"));
        assert!(of(0).unwrap_err().to_string().contains("at least one"));
    }

    #[test]
    fn a_null_is_a_value_and_numbers_keep_their_digits() {
        let value = |text: &str| {
            let operation: BatchOperation = serde_json::from_str(text).unwrap();
            operation.value.map(|value| value.get().to_owned())
        };
        assert_eq!(value(r#"{"op":"put","key":"k","value":null}"#).as_deref(), Some("null"));
        assert_eq!(value(r#"{"op":"put","key":"k","value":1.10}"#).as_deref(), Some("1.10"));
        assert_eq!(value(r#"{"op":"put","key":"k"}"#), None);
    }
}
