//! What a request says. Whatever is not understood is refused: a parameter or a condition that were silently dropped
//! would turn a careful write into a careless one.

use std::{borrow::Cow, time::Duration};

use actix_web::{
    HttpMessage, HttpRequest,
    http::header::{self, HeaderName},
};
use cairn_api_spec::{
    ApiError, Bucket, EntryName, ErrorCode, Operation, Outcome,
    operation::{Consistency, Durability, IdempotencyKey},
    ttl,
    version::Condition,
};
use cairn_operations::Reply;
use cairn_server_kit::http::{annotate, trace_of};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_CONTENT_TYPE_BYTES: usize = 255;
/// More than this of a client's own words is not repeated in an error.
const MAX_QUOTED_CHARS: usize = 64;

pub(crate) fn invalid(detail: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidParameter, detail)
}

pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(MAX_QUOTED_CHARS).collect::<String>())
}

/// The key that the path names after `prefix`. actix's own view of the path is decoded lossily, and two keys would become
/// one.
pub(crate) fn name(request: &HttpRequest, query: &Query<'_>, prefix: &str) -> Result<EntryName, ApiError> {
    let raw = request.uri().path().strip_prefix(prefix).ok_or_else(|| {
        ApiError::new(ErrorCode::RouteNotFound, "only the key may be percent-encoded, not what stands before it")
    })?;
    EntryName::from_path(&query.bucket()?, raw)
}

pub(crate) fn condition(request: &HttpRequest) -> Result<Condition, ApiError> {
    Ok(Condition::parse(single(request, &header::IF_MATCH)?, single(request, &header::IF_NONE_MATCH)?)?)
}

/// Lets the operation belong to the request's trace, and the request's span tell of the bucket.
pub(crate) fn trace(request: &HttpRequest, operation: &mut Operation) {
    operation.trace = trace_of(request);
    if operation.trace.is_some() {
        annotate(request, "cairn.bucket", operation.name.bucket());
    }
}

/// Lets the request's span tell who answered, and from which tier.
pub(crate) fn describe(request: &HttpRequest, reply: &Reply) {
    if trace_of(request).is_some() {
        annotate(request, "cairn.node", &reply.node);
        if let Outcome::Found { tier, .. } | Outcome::NotModified(_, tier) = &reply.outcome {
            annotate(request, "cairn.tier", tier.as_str());
        }
    }
}

pub(crate) fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    single(request, &IDEMPOTENCY_KEY)?.map(IdempotencyKey::parse).transpose()
}

/// The type to store, empty when there is none.
pub(crate) fn content_type(request: &HttpRequest) -> Result<String, ApiError> {
    single(request, &header::CONTENT_TYPE)?
        .map_or_else(|| Ok(String::new()), |text| check_content_type(text.to_owned()))
}

/// It comes back as a header, so it must be able to stand in one.
pub(crate) fn check_content_type(text: String) -> Result<String, ApiError> {
    if text.len() <= MAX_CONTENT_TYPE_BYTES && text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        Ok(text)
    } else {
        Err(invalid("a content type is at most 255 bytes of visible ASCII and spaces"))
    }
}

/// A compressed body would be stored compressed and come back without saying so.
pub(crate) fn refuse_content_encoding(request: &HttpRequest) -> Result<(), ApiError> {
    match single(request, &header::CONTENT_ENCODING)? {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            format!("Content-Encoding {} is not supported: send the value as it is", quoted(encoding)),
        )),
        _ => Ok(()),
    }
}

/// `?ttl=`, else `Cache-Control: max-age`.
pub(crate) fn ttl(request: &HttpRequest, query: &Query<'_>) -> Result<Option<Duration>, ApiError> {
    if let Some(text) = query.get("ttl") {
        return ttl::parse(text).map(Some);
    }
    for line in request.headers().get_all(header::CACHE_CONTROL) {
        let line = line.to_str().map_err(|_| invalid("Cache-Control is not visible ASCII"))?;
        if let Some(ttl) = ttl::from_cache_control(line)? {
            return Ok(Some(ttl));
        }
    }
    Ok(None)
}

/// `Content-Length`; actix refuses requests with a broken one.
pub(crate) fn declared_length(request: &HttpRequest) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(crate) fn require_json(request: &HttpRequest) -> Result<(), ApiError> {
    if request.content_type().trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "send JSON, with `Content-Type: application/json`; PUT /keys/{key} takes a value of any type";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail))
}

pub(crate) fn single<'a>(request: &'a HttpRequest, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(format!("the header {name} stands there more than once")));
    }
    value.to_str().map(Some).map_err(|_| invalid(format!("the header {name} is not visible ASCII")))
}

/// A query's parameters, decoded once and strictly. None costs nothing.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// # Errors
    /// `invalid_parameter` for a parameter that is not among `allowed`, is repeated, or cannot be decoded.
    pub(crate) fn parse(request: &'a HttpRequest, allowed: &[&'static str]) -> Result<Self, ApiError> {
        let text = request.query_string();
        let mut given = Vec::new();
        if text.is_empty() {
            return Ok(Self(given));
        }
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let Some(known) = allowed.iter().find(|known| **known == name) else {
                let name = quoted(&name);
                let allowed = match allowed {
                    [] => "none is allowed".to_owned(),
                    names => format!("allowed are: {}", names.join(", ")),
                };
                return Err(invalid(format!("the parameter {name} is not known here; {allowed}")));
            };
            if given.iter().any(|(name, _)| name == known) {
                let allowed = allowed.join(", ");
                return Err(invalid(format!("the parameter {known} is repeated; allowed, once each, are: {allowed}")));
            }
            given.push((*known, decode(value)?));
        }
        Ok(Self(given))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| &**value)
    }

    pub(crate) fn bucket(&self) -> Result<Bucket, ApiError> {
        self.get("bucket").map_or_else(|| Ok(Bucket::default()), Bucket::parse)
    }

    pub(crate) fn consistency(&self) -> Result<Consistency, ApiError> {
        match self.get("consistency") {
            None | Some("strong") => Ok(Consistency::Strong),
            Some("eventual") => Ok(Consistency::Eventual),
            Some(text) => {
                let text = quoted(text);
                Err(invalid(format!("consistency {text} is not known; it is strong or eventual")))
            }
        }
    }

    pub(crate) fn durability(&self) -> Result<Option<Durability>, ApiError> {
        self.get("durability")
            .map(|text| match text {
                "memory" => Ok(Durability::Memory),
                "disk" => Ok(Durability::Disk),
                "fsync" => Ok(Durability::Fsync),
                "object" => Ok(Durability::Object),
                _ => {
                    let text = quoted(text);
                    Err(invalid(format!("durability {text} is not known; it is memory, disk, fsync or object")))
                }
            })
            .transpose()
    }
}

/// `application/x-www-form-urlencoded`, as browsers and HTTP clients write queries: `+` is a space.
fn decode(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let broken = || invalid("query: a '%' must be followed by two hexadecimal digits");
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(broken);
        decoded.push(match byte {
            b'+' => b' ',
            #[expect(clippy::cast_possible_truncation, reason = "two hexadecimal digits make one byte")]
            b'%' => (digit()? * 16 + digit()?) as u8,
            plain => plain,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| invalid("query: a parameter is not valid UTF-8"))
}
