//! Every error that a client can meet: one table, one document.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    trace::TraceId,
    version::{Version, VersionError},
};

macro_rules! error_codes {
    ($($variant:ident = $status:literal $code:tt $title:literal;)*) => {
        /// A stable name for what went wrong. Clients branch on this, people read `detail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum ErrorCode {
            $(#[doc = concat!($title, " (", stringify!($status), ").")] #[serde(rename = $code)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The HTTP status that carries this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The code as it stands in the problem document.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// A short title that is the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

error_codes! {
    BadRequest = 400 "bad_request" "The request could not be understood";
    InvalidKey = 400 "invalid_key" "The key is not valid";
    InvalidBucket = 400 "invalid_bucket" "The bucket is not valid";
    InvalidTtl = 400 "invalid_ttl" "The time to live is not valid";
    InvalidBody = 400 "invalid_body" "The body is not valid";
    InvalidParameter = 400 "invalid_parameter" "A parameter or header is not valid";
    RouteNotFound = 404 "route_not_found" "There is nothing at this path";
    KeyNotFound = 404 "key_not_found" "The key does not exist";
    NodeNotFound = 404 "node_not_found" "The node is not registered";
    MethodNotAllowed = 405 "method_not_allowed" "This path does not take this method";
    RequestTimeout = 408 "request_timeout" "The request did not arrive in time";
    NodeConflict = 409 "node_conflict" "Another node has this id";
    NotAnInteger = 409 "not_an_integer" "The value is not an integer that can be added to";
    PreconditionFailed = 412 "precondition_failed" "The condition does not hold";
    ValueTooLarge = 413 "value_too_large" "The value is too large";
    UnsupportedMediaType = 415 "unsupported_media_type" "The media type is not supported";
    NotOwner = 421 "not_owner" "This node does not own the partition";
    RateLimited = 429 "rate_limited" "Too many requests";
    Internal = 500 "internal" "The server failed";
    NoNodes = 503 "no_nodes" "No node serves this partition";
    PartitionOffline = 503 "partition_offline" "The partition cannot be reached";
    BelowMinInSync = 503 "below_min_in_sync" "Too few copies are in sync";
    ObjectStoreUnavailable = 503 "object_store_unavailable" "The object store does not answer";
    Overloaded = 503 "overloaded" "The server has too much in flight";
    ShuttingDown = 503 "shutting_down" "The server is stopping";
    OutcomeUnknown = 504 "outcome_unknown" "The write may or may not have happened";
    StorageFull = 507 "storage_full" "The storage cannot take the value";
}

impl ErrorCode {
    /// Whether a write that ended so surely changed nothing.
    pub fn had_no_effect(self) -> bool {
        !matches!(self, Self::Internal | Self::ObjectStoreUnavailable | Self::OutcomeUnknown)
    }

    /// Whether the same request may end better a little later, at the same server or at another one.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::NotOwner
                | Self::RateLimited
                | Self::NoNodes
                | Self::PartitionOffline
                | Self::BelowMinInSync
                | Self::ObjectStoreUnavailable
                | Self::Overloaded
                | Self::ShuttingDown
                | Self::OutcomeUnknown
        )
    }
}

/// An error on its way to a client: what every domain error becomes, exactly once, at the edge of its server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct ApiError {
    /// The stable code.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub detail: String,
    /// Seconds after which a retry makes sense (`Retry-After`).
    pub retry_after: Option<u32>,
    /// The key's version, on replies about a key.
    pub version: Option<Version>,
    /// The node that answered, when it was not the one that the client asked.
    pub node: Option<String>,
    /// The trace under which the server that met it has logged it, when it was not the one that the client asked.
    pub trace_id: Option<TraceId>,
}

impl ApiError {
    /// An error with a code and its explanation. 429 and 503 get a `Retry-After` of one second.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let retry_after = matches!(code.status(), 429 | 503).then_some(1);
        Self { code, detail: detail.into(), retry_after, version: None, node: None, trace_id: None }
    }

    /// The same about a key with this version.
    #[must_use]
    pub fn with_version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// The error of a key that is not there.
    pub fn key_not_found(version: Version) -> Self {
        Self::new(ErrorCode::KeyNotFound, "no value is stored under this key").with_version(version)
    }
}

impl From<VersionError> for ApiError {
    fn from(error: VersionError) -> Self {
        Self::new(ErrorCode::InvalidParameter, error.to_string())
    }
}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says it all.
    #[schema(example = "about:blank")]
    pub r#type: String,
    /// The title that belongs to the code.
    #[schema(example = "The key does not exist")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// The stable code.
    #[schema(example = "key_not_found")]
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    #[schema(example = "no value is stored under this key")]
    pub detail: String,
    /// Stands in the server's log line for this request, too.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    pub trace_id: String,
    /// The node that answered, when it was not the one that the client asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Seconds after which a retry makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// The document for an error.
    pub fn new(error: &ApiError, trace_id: String) -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: error.code.title().to_owned(),
            status: error.code.status(),
            code: error.code,
            detail: error.detail.clone(),
            trace_id,
            node: error.node.clone(),
            retry_after: error.retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_read_back() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code:?}");
            assert_eq!(serde_json::from_value::<ErrorCode>(code.as_str().into()).unwrap(), *code);
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn an_answer_that_is_unavailable_or_late_may_pass_and_a_server_failure_promises_nothing() {
        for code in ErrorCode::ALL {
            assert!(!matches!(code.status(), 421 | 429 | 503 | 504) || code.may_pass(), "{code:?}");
            assert!(!matches!(code.status(), 500 | 504) || !code.had_no_effect(), "{code:?}");
        }
    }
}
