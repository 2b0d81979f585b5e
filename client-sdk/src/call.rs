//! One attempt at one server: an operation as the generated client's call, and its answer as a reply or a failure.

use bytes::{Bytes, BytesMut};
use cairn_api_spec::{
    ApiError, ErrorCode, Operation, Version,
    error::Problem,
    name::encode_key,
    operation::{Action, Consistency, IdempotencyKey, Put},
    version::Condition,
};
use futures_util::TryStreamExt as _;
use progenitor_client::{ByteStream, Error, ResponseValue};
use reqwest::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};

use crate::{
    dots::{self, DotClient},
    error::{Failure, chain},
    generated::{Call, PLACEHOLDER, node},
};

/// The largest value that any server takes.
const MAX_VALUE_BYTES: usize = 64 << 20;
/// The largest problem document that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// The connections that all requests share.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) dots: DotClient,
}

/// A success.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The key's version: every reply about a key has one.
    pub(crate) fn version(&self) -> Version {
        version(&self.headers)
    }

    pub(crate) fn text(&self, name: &header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends an operation to the server at `base`.
pub(crate) async fn send(http: &Http, base: &str, operation: &Operation) -> Result<Reply, Failure> {
    if dots::needed(operation.name.key()) {
        return success(http.dots.send(&http.client, base, operation).await?).await;
    }
    let Parameters { bucket, consistency, idempotency_key, if_match, if_none_match } = &Parameters::of(operation);
    let (if_match, if_none_match) = (if_match.as_deref(), if_none_match.as_deref());
    let (consistency, idempotency_key) = (consistency.as_ref(), *idempotency_key);
    let call = |content_type| {
        let traceparent = operation.trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok());
        let call = Call { key_path: Some(encode_key(operation.name.key())), content_type, traceparent };
        node::Client::new_with_client(base, http.client.clone(), call)
    };
    match &operation.action {
        Action::Get => {
            let value = call(None).get_key(PLACEHOLDER, *bucket, consistency, if_match, if_none_match).await;
            read_all(match value {
                Ok(value) => value,
                Err(error) => return Err(failure(error).await),
            })
            .await
        }
        Action::Head => {
            answered(call(None).head_key(PLACEHOLDER, *bucket, consistency, if_match, if_none_match).await).await
        }
        Action::Put(put) => {
            let client = call(content_type(put).map_err(|error| Failure::Unsent(error.to_string()))?);
            let (durability, ttl) = (put.durability.as_ref(), ttl(put));
            let value = put.value.clone();
            let ttl = ttl.as_deref();
            answered(
                client
                    .put_key(
                        PLACEHOLDER,
                        *bucket,
                        durability,
                        ttl,
                        None,
                        idempotency_key,
                        if_match,
                        if_none_match,
                        value,
                    )
                    .await,
            )
            .await
        }
        Action::Delete { durability } => {
            let durability = durability.as_ref();
            answered(
                call(None).delete_key(PLACEHOLDER, *bucket, durability, idempotency_key, if_match, if_none_match).await,
            )
            .await
        }
    }
}

/// What an operation says beside its key and value, as HTTP has it.
pub(crate) struct Parameters<'a> {
    pub(crate) bucket: Option<&'a str>,
    pub(crate) consistency: Option<Consistency>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
}

impl<'a> Parameters<'a> {
    pub(crate) fn of(operation: &'a Operation) -> Self {
        let etag = |version: Version| Some(format!("\"{version}\""));
        let (if_match, if_none_match) = match operation.condition {
            Condition::None => (None, None),
            Condition::Exists => (Some("*".to_owned()), None),
            Condition::Matches(version) => (etag(version), None),
            Condition::Absent => (None, Some("*".to_owned())),
            Condition::Differs(version) => (None, etag(version)),
        };
        Self {
            bucket: Some(operation.name.bucket()),
            consistency: operation.is_eventual().then_some(Consistency::Eventual),
            idempotency_key: operation.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            if_match,
            if_none_match,
        }
    }
}

pub(crate) fn ttl(put: &Put) -> Option<String> {
    put.ttl.map(|ttl| format!("{}ms", ttl.as_millis()))
}

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

async fn answered(result: Result<ResponseValue<()>, Error<Problem>>) -> Result<Reply, Failure> {
    match result {
        Ok(value) => Ok(Reply { status: value.status(), headers: value.headers().clone(), body: Bytes::new() }),
        Err(error) => Err(failure(error).await),
    }
}

async fn read_all(value: ResponseValue<ByteStream>) -> Result<Reply, Failure> {
    let (status, headers, length) = (value.status(), value.headers().clone(), value.content_length());
    let too_long = || Failure::Strange(format!("the value is longer than {MAX_VALUE_BYTES} bytes"));
    let length =
        usize::try_from(length.unwrap_or(0)).ok().filter(|length| *length <= MAX_VALUE_BYTES).ok_or_else(too_long)?;
    let mut body = BytesMut::with_capacity(length);
    let mut stream = value.into_inner_stream();
    while let Some(piece) = stream.try_next().await.map_err(|error| Failure::Broken(chain(&error)))? {
        if body.len() + piece.len() > MAX_VALUE_BYTES {
            return Err(too_long());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Reply { status, headers, body: body.freeze() })
}

/// Reads a reply that did not come through a generated method.
async fn success(response: Response) -> Result<Reply, Failure> {
    match response.status().is_success() {
        true => read_all(ResponseValue::stream(response)).await,
        false => Err(refusal(response).await),
    }
}

/// What a generated method's error says of the request.
pub(crate) async fn failure(error: Error<Problem>) -> Failure {
    match error {
        Error::ErrorResponse(value) => {
            let version = version(value.headers());
            Failure::Refused { problem: Box::new(value.into_inner()), version }
        }
        Error::CommunicationError(error) if error.is_connect() || error.is_builder() => Failure::Unsent(chain(&error)),
        Error::CommunicationError(error) | Error::ResponseBodyError(error) | Error::InvalidUpgrade(error) => {
            Failure::Broken(chain(&error))
        }
        Error::UnexpectedResponse(response) => refusal(response).await,
        Error::InvalidResponsePayload(body, error) => Failure::Strange(format!("{error}: {}", shown(&body))),
        Error::InvalidRequest(why) | Error::Custom(why) => Failure::Unsent(why),
    }
}

/// A status that the contract does not list for the request, with or without a problem document.
async fn refusal(response: Response) -> Failure {
    let (status, version) = (response.status(), version(response.headers()));
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Ok(Some(piece)) = stream.try_next().await {
        if body.len() + piece.len() > MAX_PROBLEM_BYTES {
            break;
        }
        body.extend_from_slice(&piece);
    }
    match serde_json::from_slice(&body) {
        Ok(problem) => Failure::Refused { problem: Box::new(problem), version },
        Err(_) => Failure::Strange(format!("HTTP status {status}: {}", shown(&body))),
    }
}

fn version(headers: &HeaderMap) -> Version {
    let etag = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
    etag.and_then(|etag| Version::parse_etag(etag).ok()).unwrap_or(Version::NONE)
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect()
}
