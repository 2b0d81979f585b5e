//! An operation as an HTTP request: what stands in its path, its query, its headers and its JSON body.

use std::borrow::Cow;

use crate::{
    operation::{Action, Consistency, Durability, IdempotencyKey, Operation},
    ttl,
};

/// The method of an action, and the path up to the key.
pub fn method_and_resource(action: &Action) -> (&'static str, &'static str) {
    match action {
        Action::Get => ("GET", "/keys/"),
        Action::Head => ("HEAD", "/keys/"),
        Action::Put(_) => ("PUT", "/keys/"),
        Action::Delete { .. } => ("DELETE", "/keys/"),
        Action::Increment { .. } => ("POST", "/counters/"),
        Action::Explain => ("GET", "/explain/"),
    }
}

/// What an operation says beside its key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// In the query.
    pub bucket: &'a str,
    /// In the query, unless it is the default.
    pub consistency: Option<Consistency>,
    /// In the query.
    pub durability: Option<Durability>,
    /// In the query of a put; the body of an increment has its own.
    pub ttl: Option<String>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `Content-Type` of a value.
    pub content_type: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    /// The parameters of an operation.
    pub fn of(operation: &'a Operation) -> Self {
        let (if_match, if_none_match) = operation.condition.headers();
        let put = match &operation.action {
            Action::Put(put) => Some(put),
            _ => None,
        };
        Self {
            bucket: operation.name.bucket(),
            consistency: operation.is_eventual().then_some(Consistency::Eventual),
            durability: operation.action.durability(),
            ttl: put.and_then(|put| put.ttl).map(ttl::format),
            idempotency_key: operation.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            if_match,
            if_none_match,
            traceparent: operation.trace.map(|trace| trace.to_string()),
            content_type: put.map(|put| put.content_type.as_str()).filter(|text| !text.is_empty()),
        }
    }

    /// Those of the query.
    pub fn query(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let parameters = [
            ("bucket", Some(self.bucket.into())),
            ("consistency", self.consistency.map(|consistency| consistency.as_str().into())),
            ("durability", self.durability.map(|durability| durability.as_str().into())),
            ("ttl", self.ttl.as_deref().map(Into::into)),
        ];
        parameters.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }

    /// Those of the headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let headers = [
            ("content-type", self.content_type),
            ("idempotency-key", self.idempotency_key),
            ("if-match", self.if_match.as_deref()),
            ("if-none-match", self.if_none_match.as_deref()),
            ("traceparent", self.traceparent.as_deref()),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}
