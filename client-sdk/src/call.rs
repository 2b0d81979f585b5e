//! One attempt at one server: an operation as the generated client's call, and its answer as a reply or a failure.

use bytes::{Bytes, BytesMut};
use cairn_api_spec::{
    ApiError, ErrorCode, Operation, TraceContext, Version,
    batch::{Batch, BatchResult},
    data::Increment,
    error::Problem,
    name::encode_key,
    operation::{Action, Put},
    request::Parameters,
};
use futures_util::TryStreamExt as _;
use progenitor_client::{ByteStream, Error, ResponseValue};
use reqwest::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

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

    /// The JSON document.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::Strange(format!("{error}: {}", shown(&self.body))))
    }

    pub(crate) fn text(&self, name: &header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The type of a value that is put, if it has one.
///
/// # Errors
/// `invalid_parameter` for what cannot stand in a header.
pub(crate) fn content_type(action: &Action) -> Result<Option<HeaderValue>, ApiError> {
    let Action::Put(Put { content_type, .. }) = action else { return Ok(None) };
    if content_type.is_empty() {
        return Ok(None);
    }
    let refuse =
        |_| ApiError::new(ErrorCode::InvalidParameter, "the content type has characters that no header may have");
    HeaderValue::from_str(content_type).map(Some).map_err(refuse)
}

/// Sends an operation to the server at `base`.
pub(crate) async fn send(http: &Http, base: &str, operation: &Operation) -> Result<Reply, Failure> {
    if dots::needed(operation.name.key()) {
        return success(http.dots.send(&http.client, base, operation).await?).await;
    }
    let parameters = Parameters::of(operation);
    let Parameters { durability, idempotency_key, .. } = parameters;
    let (bucket, consistency) = (Some(parameters.bucket), parameters.consistency.as_ref());
    let (if_match, if_none_match) = (parameters.if_match.as_deref(), parameters.if_none_match.as_deref());
    let call = Call {
        key_path: Some(encode_key(operation.name.key())),
        content_type: content_type(&operation.action).map_err(|error| Failure::Unsent(error.to_string()))?,
        traceparent: parameters.traceparent.as_deref().and_then(|trace| HeaderValue::from_str(trace).ok()),
    };
    let client = node::Client::new_with_client(base, http.client.clone(), call);
    let key = PLACEHOLDER;
    match &operation.action {
        Action::Get => match client.get_key(key, bucket, consistency, if_match, if_none_match).await {
            Ok(value) => read_all(value).await,
            Err(error) => Err(failure(error).await),
        },
        Action::Head => answered(client.head_key(key, bucket, consistency, if_match, if_none_match).await).await,
        Action::Put(put) => {
            let (ttl, value, name) = (parameters.ttl.as_deref(), put.value.clone(), idempotency_key);
            let put = client.put_key(key, bucket, durability.as_ref(), ttl, None, name, if_match, if_none_match, value);
            answered(put.await).await
        }
        Action::Delete { .. } => {
            let name = idempotency_key;
            answered(client.delete_key(key, bucket, durability.as_ref(), name, if_match, if_none_match).await).await
        }
        Action::Increment { delta, ttl, .. } => {
            let (name, body) = (idempotency_key, Increment::new(*delta, *ttl));
            let sum = client.increment_counter(key, bucket, durability.as_ref(), name, if_match, if_none_match, &body);
            document(sum.await).await
        }
        Action::Explain => document(client.explain_key(key, bucket).await).await,
    }
}

async fn answered(result: Result<ResponseValue<()>, Error<Problem>>) -> Result<Reply, Failure> {
    match result {
        Ok(value) => Ok(Reply { status: value.status(), headers: value.headers().clone(), body: Bytes::new() }),
        Err(error) => Err(failure(error).await),
    }
}

/// Sends operations of a batch to the server at `base`.
pub(crate) async fn send_batch(
    http: &Http,
    base: &str,
    batch: &Batch,
    trace: Option<TraceContext>,
) -> Result<Vec<BatchResult>, Failure> {
    let traceparent = trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok());
    let client = node::Client::new_with_client(base, http.client.clone(), Call { traceparent, ..Call::default() });
    match client.execute_batch(None, batch).await {
        Ok(value) => Ok(value.into_inner().results),
        Err(error) => Err(failure(error).await),
    }
}

/// A reply with a JSON document, which it has as text again: so it also comes for the keys that `dots` sends.
async fn document<T: Serialize>(result: Result<ResponseValue<T>, Error<Problem>>) -> Result<Reply, Failure> {
    match result {
        Ok(value) => {
            let (status, headers) = (value.status(), value.headers().clone());
            let body = serde_json::to_vec(&*value).map_err(|error| Failure::Strange(error.to_string()))?;
            Ok(Reply { status, headers, body: body.into() })
        }
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
