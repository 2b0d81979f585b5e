//! Outcomes as status, headers and body.
//!
//! Reads are the hottest path of the whole system: the values of a reply's headers are formatted into one allocation,
//! of which each header is a slice, and a value in memory is sent without a copy.

use std::{
    io::{self, Write},
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::{
    HttpResponse,
    body::{BodyStream, BoxBody, SizedStream},
    http::{
        StatusCode,
        header::{self, ContentType, HeaderMap, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, ErrorCode, Outcome, Version,
    operation::{Metadata, Tier},
};
use cairn_operations::{Reply, ValueStream};
use cairn_server_kit::http::{Held, HttpError, UNCOUNTED};
use futures_util::stream;
use httpdate::HttpDate;
use serde::Serialize;

use crate::patience::Patient;

/// 9999-12-31T23:59:59Z, the last second that an HTTP date can tell.
const LAST_SECOND: u64 = 253_402_300_799;
/// Enough for all headers of a usual reply.
const HEADER_BYTES: usize = 256;

/// The reply, also to what failed.
pub(crate) fn or_error(reply: Result<HttpResponse, ApiError>) -> HttpResponse {
    reply.unwrap_or_else(|error| HttpResponse::from_error(HttpError(error)))
}

/// The reply to a GET.
pub(crate) fn get(reply: Reply) -> Result<HttpResponse, ApiError> {
    let Reply { node, outcome, stream } = reply;
    match outcome {
        Outcome::Found { metadata, tier, value } => {
            let body = match (value, stream) {
                (Some(value), _) => body_of(value),
                (None, Some(stream)) => streamed(metadata.size, stream),
                (None, None) => return Err(ApiError::new(ErrorCode::Internal, "the value is missing")),
            };
            Ok(found(&node, &metadata, tier, body))
        }
        other => not_found(&node, other),
    }
}

/// A JSON document that takes the room held for it until it is sent.
pub(crate) fn large_json(held: Held<'_>, document: &impl Serialize) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_vec(document)
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("the answer cannot be written: {error}")))?;
    let body = body_of(held.keep(text.into()));
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

fn body_of(value: Bytes) -> BoxBody {
    if value.len() > UNCOUNTED { BoxBody::new(Patient::new(value)) } else { BoxBody::new(value) }
}

/// The reply to a HEAD: what GET says, without the value.
///
/// The length is an ordinary header over an empty body. actix would also take it from a body that it then does not send,
/// but it decides that by the method of the request that it read last, and behind a pipelined GET it would wait for it.
pub(crate) fn head(reply: Reply) -> Result<HttpResponse, ApiError> {
    match reply.outcome {
        Outcome::Found { metadata, tier, .. } => {
            let body = BodyStream::new(stream::empty::<io::Result<Bytes>>());
            let mut response = found(&reply.node, &metadata, tier, BoxBody::new(body));
            response.head_mut().no_chunking(true);
            response.headers_mut().insert(header::CONTENT_LENGTH, metadata.size.into());
            Ok(response)
        }
        other => not_found(&reply.node, other),
    }
}

/// The version and whether the key is new, when a write was stored.
pub(crate) fn stored(outcome: Outcome) -> Result<(bool, Metadata), ApiError> {
    match outcome {
        Outcome::Stored { created, metadata } => Ok((created, metadata)),
        other => Err(refused(&other)),
    }
}

/// The reply to a PUT.
pub(crate) fn put(outcome: Outcome) -> Result<HttpResponse, ApiError> {
    let (created, metadata) = stored(outcome)?;
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(with_etag(status, metadata.version))
}

/// The reply to a DELETE.
pub(crate) fn delete(outcome: &Outcome) -> Result<HttpResponse, ApiError> {
    match outcome {
        Outcome::Deleted(version) => Ok(with_etag(StatusCode::NO_CONTENT, *version)),
        other => Err(refused(other)),
    }
}

/// The sum and what is known of the key, when an increment was stored.
pub(crate) fn counted(outcome: Outcome) -> Result<(i64, Metadata), ApiError> {
    match outcome {
        Outcome::Counted { value, metadata, .. } => Ok((value, metadata)),
        other => Err(refused(&other)),
    }
}

/// `"17"`.
pub(crate) fn etag(version: Version) -> Option<HeaderValue> {
    let mut text = Vec::with_capacity(22);
    write_etag(&mut text, version);
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

fn with_etag(status: StatusCode, version: Version) -> HttpResponse {
    let mut response = HttpResponse::new(status);
    if let Some(etag) = etag(version) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn streamed(size: u64, stream: ValueStream) -> BoxBody {
    let mut pieces = stream.pieces;
    BoxBody::new(SizedStream::new(size, stream::poll_fn(move |cx| pieces.poll_recv(cx))))
}

fn found(node: &str, metadata: &Metadata, tier: Tier, body: BoxBody) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    let content_type = if metadata.content_type.is_empty() {
        HeaderValue::from_static("application/octet-stream")
    } else {
        HeaderValue::from_str(&metadata.content_type)
            .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    describe(headers, node, metadata, tier);
    response
}

/// A read that sends no value.
fn not_found(node: &str, outcome: Outcome) -> Result<HttpResponse, ApiError> {
    match outcome {
        Outcome::NotModified(metadata, tier) => {
            let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
            describe(response.headers_mut(), node, &metadata, tier);
            Ok(response)
        }
        Outcome::Missing(version) => {
            let mut response = HttpResponse::from_error(HttpError(ApiError::key_not_found(version)));
            let mut values = Values::new();
            let status = values.write(|text| {
                write_node(text, node);
                text.extend_from_slice(b"; fwd=miss");
            });
            values.freeze().insert(response.headers_mut(), header::CACHE_STATUS, status);
            Ok(response)
        }
        other => Err(refused(&other)),
    }
}

/// What an outcome says when it is not the one that was hoped for.
pub(crate) fn refused(outcome: &Outcome) -> ApiError {
    match outcome {
        Outcome::Missing(version) => ApiError::key_not_found(*version),
        Outcome::ConditionFailed(version) => {
            let detail = "If-Match or If-None-Match does not hold; ETag gives the version that the key has";
            ApiError::new(ErrorCode::PreconditionFailed, detail).with_version(*version)
        }
        Outcome::Found { .. }
        | Outcome::NotModified(..)
        | Outcome::Stored { .. }
        | Outcome::Deleted(_)
        | Outcome::Counted { .. }
        | Outcome::Explained(_) => ApiError::new(ErrorCode::Internal, "the operation was answered as another one"),
    }
}

/// The headers of a live key. `max-age` is the whole lifetime, since `Age` counts from the write (RFC 9111, 4.2.3).
fn describe(headers: &mut HeaderMap, node: &str, metadata: &Metadata, tier: Tier) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let seconds = |from: u64, to: u64| to.saturating_sub(from) / 1_000;

    let mut values = Values::new();
    let etag = values.write(|text| write_etag(text, metadata.version));
    let modified = values.write(|text| write_date(text, metadata.modified_at));
    let age = values.write(|text| write_number(text, seconds(metadata.modified_at, now)));
    let expiry = metadata.expires_at.map(|at| {
        let expires = values.write(|text| write_date(text, at));
        let max_age = values.write(|text| {
            text.extend_from_slice(b"max-age=");
            write_number(text, seconds(metadata.modified_at, at));
        });
        (expires, max_age)
    });
    let status = values.write(|text| {
        write_node(text, node);
        text.extend_from_slice(b"; hit");
        if let Some(at) = metadata.expires_at {
            text.extend_from_slice(b"; ttl=");
            write_number(text, seconds(now, at));
        }
        text.extend_from_slice(b"; detail=");
        text.extend_from_slice(tier.as_str().as_bytes());
    });

    let values = values.freeze();
    values.insert(headers, header::ETAG, etag);
    values.insert(headers, header::LAST_MODIFIED, modified);
    values.insert(headers, header::AGE, age);
    if let Some((expires, max_age)) = expiry {
        values.insert(headers, header::EXPIRES, expires);
        values.insert(headers, header::CACHE_CONTROL, max_age);
    }
    values.insert(headers, header::CACHE_STATUS, status);
}

/// Header values that share one allocation.
struct Values(Vec<u8>);

struct FrozenValues(Bytes);

impl Values {
    fn new() -> Self {
        Self(Vec::with_capacity(HEADER_BYTES))
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.0.len();
        write(&mut self.0);
        start..self.0.len()
    }

    fn freeze(self) -> FrozenValues {
        FrozenValues(Bytes::from(self.0))
    }
}

impl FrozenValues {
    /// Leaves out what cannot stand in a header: a node's id is its own word.
    fn insert(&self, headers: &mut HeaderMap, name: HeaderName, range: Range<usize>) {
        if let Ok(value) = HeaderValue::from_maybe_shared(self.0.slice(range)) {
            headers.insert(name, value);
        }
    }
}

fn write_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

fn write_etag(text: &mut Vec<u8>, version: Version) {
    text.push(b'"');
    write_number(text, version.0);
    text.push(b'"');
}

fn write_date(text: &mut Vec<u8>, millis: u64) {
    let time = UNIX_EPOCH + Duration::from_secs((millis / 1_000).min(LAST_SECOND));
    // Writing into a `Vec` cannot fail.
    let _ = write!(text, "{}", HttpDate::from(time));
}

/// A node's id as RFC 8941 wants it: a token when it begins with a letter, else a string.
fn write_node(text: &mut Vec<u8>, node: &str) {
    if node.starts_with(|first: char| first.is_ascii_alphabetic()) {
        text.extend_from_slice(node.as_bytes());
    } else {
        let _ = write!(text, "\"{node}\"");
    }
}
