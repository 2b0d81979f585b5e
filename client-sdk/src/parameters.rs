//! What an operation says beside its key and value, as HTTP has it.

use std::time::Duration;

use cairn_api_spec::{
    ApiError, ErrorCode, Operation, Version,
    data::{Increment, TtlField},
    operation::{Consistency, Durability, IdempotencyKey, Put},
    version::Condition,
};
use reqwest::header::HeaderValue;

/// See the module.
pub(crate) struct Parameters<'a> {
    pub(crate) bucket: Option<&'a str>,
    pub(crate) consistency: Option<Consistency>,
    pub(crate) durability: Option<Durability>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
}

impl<'a> Parameters<'a> {
    pub(crate) fn of(operation: &'a Operation) -> Self {
        let (if_match, if_none_match) = conditions(operation.condition);
        Self {
            bucket: Some(operation.name.bucket()),
            consistency: operation.is_eventual().then_some(Consistency::Eventual),
            durability: operation.action.durability(),
            idempotency_key: operation.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            if_match,
            if_none_match,
        }
    }
}

/// A time to live, to the millisecond.
pub(crate) fn ttl(ttl: Option<Duration>) -> Option<String> {
    ttl.map(|ttl| format!("{}ms", ttl.as_millis()))
}

/// The body of an increment.
pub(crate) fn increment(delta: i64, lifetime: Option<Duration>) -> Increment {
    Increment { delta, ttl: ttl(lifetime).map(TtlField::Text) }
}

/// The value's type, if it has one.
///
/// # Errors
/// `invalid_parameter` for what cannot stand in a header.
pub(crate) fn content_type(put: &Put) -> Result<Option<HeaderValue>, ApiError> {
    if put.content_type.is_empty() {
        return Ok(None);
    }
    let refuse =
        |_| ApiError::new(ErrorCode::InvalidParameter, "the content type has characters that no header may have");
    HeaderValue::from_str(&put.content_type).map(Some).map_err(refuse)
}

/// `If-Match` and `If-None-Match`.
pub(crate) fn conditions(condition: Condition) -> (Option<String>, Option<String>) {
    let etag = |version: Version| Some(format!("\"{version}\""));
    match condition {
        Condition::None => (None, None),
        Condition::Exists => (Some("*".to_owned()), None),
        Condition::Matches(version) => (etag(version), None),
        Condition::Absent => (None, Some("*".to_owned())),
        Condition::Differs(version) => (None, etag(version)),
    }
}
