//! Values that are too large for a frame, streamed between the client and the owner without being held here.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, Operation, Outcome, TraceContext, TraceId, Version,
    error::Problem,
    name::encode_key,
    operation::{Action, Metadata, Put, Tier},
    version::Condition,
};
use cairn_operations::{Reply, ValueStream, metrics::Kind};
use futures_util::{Stream, StreamExt};
use reqwest::{Body, RequestBuilder, Response, StatusCode, header};
use tokio::sync::{mpsc, oneshot};

use super::{Gateway, GatewayError, routes::Holder};

/// How long a transfer may take: what a megabyte a second would take for the largest value there can be.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);
/// Pieces on their way between the two connections.
const PIECES: usize = 8;

impl Gateway {
    /// Stores a value at its owner.
    ///
    /// # Errors
    /// With the value, when nothing of it was taken.
    pub(super) async fn put_over_http(
        &self,
        owner: &Holder,
        operation: &Operation,
        value: ValueStream,
    ) -> Result<Reply, (ApiError, Option<ValueStream>)> {
        let mut span = self.plan.watch.span(&owner.target, Kind::Put, operation.trace);
        let length = value.length;
        let (body, mut untouched) = Loan::of(value);
        let result = async {
            let Action::Put(put) = &operation.action else { return Err(GatewayError::Strange.into()) };
            let mut request = self.plan.http.put(url(owner, &operation.name)).timeout(TRANSFER_TIMEOUT);
            if let Some(length) = length {
                request = request.header(header::CONTENT_LENGTH, length);
            }
            let request = with_trace(request, span.context().or(operation.trace));
            let request = with_settings(with_condition(request, operation.condition), operation, put);
            let response = request.body(Body::wrap_stream(body)).send().await.map_err(|error| {
                let code = if error.is_connect() { ErrorCode::PartitionOffline } else { ErrorCode::OutcomeUnknown };
                ApiError::new(code, format!("{} did not take the value: {error}", owner.target.node))
            })?;
            stored(response, put, length.unwrap_or(0)).await
        };
        match result.await {
            Ok(outcome) => Ok(Reply { node: owner.target.node.clone(), outcome, stream: None }),
            Err(error) => {
                span.fail(error.code.as_str());
                let error = ApiError { node: Some(owner.target.node.to_string()), ..error };
                Err((error, untouched.try_recv().ok()))
            }
        }
    }

    /// Fetches a value from a holder, in pieces.
    pub(super) async fn get_over_http(
        &self,
        holder: &Holder,
        operation: &Operation,
        trace: Option<TraceContext>,
    ) -> Result<Reply, ApiError> {
        let request = self.plan.http.get(url(holder, &operation.name)).timeout(TRANSFER_TIMEOUT);
        let mut request = with_trace(request, trace);
        if operation.is_eventual() {
            request = request.query(&[("consistency", operation.consistency)]);
        }
        let node = holder.target.node.clone();
        let response = request.send().await.map_err(|error| {
            ApiError::new(ErrorCode::PartitionOffline, format!("{node} did not give the value: {error}"))
        })?;
        let outcome = match response.status() {
            StatusCode::OK => Outcome::Found {
                metadata: Metadata {
                    version: version(&response),
                    modified_at: date(&response, &header::LAST_MODIFIED).unwrap_or(0),
                    expires_at: date(&response, &header::EXPIRES),
                    size: response.content_length().unwrap_or(0),
                    content_type: text(&response, &header::CONTENT_TYPE).unwrap_or_default().to_owned(),
                },
                tier: tier(&response),
                value: None,
            },
            StatusCode::NOT_FOUND => Outcome::Missing(version(&response)),
            _ => return Err(problem(response).await),
        };
        let stream = matches!(outcome, Outcome::Found { .. }).then(|| pieces(response));
        Ok(Reply { node, outcome, stream })
    }
}

/// A value on its way out. When it is dropped before anything was taken of it, it goes back to the lender.
struct Loan {
    value: Option<ValueStream>,
    lender: Option<oneshot::Sender<ValueStream>>,
}

impl Loan {
    fn of(value: ValueStream) -> (Self, oneshot::Receiver<ValueStream>) {
        let (lender, untouched) = oneshot::channel();
        (Self { value: Some(value), lender: Some(lender) }, untouched)
    }
}

impl Stream for Loan {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(value) = &mut self.value else { return Poll::Ready(None) };
        let piece = ready!(value.pieces.poll_recv(cx));
        self.lender = None;
        Poll::Ready(piece)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let (Some(lender), Some(value)) = (self.lender.take(), self.value.take()) {
            // A lender that has gone does not want it back.
            let _ = lender.send(value);
        }
    }
}

/// What a node says of a put.
async fn stored(response: Response, put: &Put, size: u64) -> Result<Outcome, ApiError> {
    let version = version(&response);
    match response.status() {
        StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(Outcome::Stored {
            created: response.status() == StatusCode::CREATED,
            metadata: Metadata {
                version,
                modified_at: 0,
                expires_at: date(&response, &header::EXPIRES),
                size,
                content_type: put.content_type.clone(),
            },
        }),
        StatusCode::PRECONDITION_FAILED => Ok(Outcome::ConditionFailed(version)),
        _ => Err(problem(response).await),
    }
}

/// Waits for all of a value that cannot be streamed. Whoever feeds the stream bounds it.
pub(super) async fn collect(operation: &Operation, mut value: ValueStream) -> Result<Operation, ApiError> {
    let mut whole = Vec::new();
    while let Some(piece) = value.pieces.recv().await {
        let piece = piece.map_err(|error| ApiError::new(ErrorCode::InvalidBody, error.to_string()))?;
        whole.extend_from_slice(&piece);
    }
    let mut operation = operation.clone();
    if let Action::Put(put) = &mut operation.action {
        put.value = whole.into();
    }
    Ok(operation)
}

/// Passes a body on as it comes. The task ends with the body, or as soon as nobody takes it.
fn pieces(response: Response) -> ValueStream {
    let length = response.content_length();
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::spawn(async move {
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            if sender.send(piece.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    });
    ValueStream { length, pieces }
}

fn url(holder: &Holder, name: &EntryName) -> String {
    format!("{}/keys/{}?bucket={}", holder.target.address, encode_key(name.key()), name.bucket())
}

fn with_trace(request: RequestBuilder, trace: Option<TraceContext>) -> RequestBuilder {
    match trace {
        Some(trace) => request.header("traceparent", trace.to_string()),
        None => request,
    }
}

fn with_condition(request: RequestBuilder, condition: Condition) -> RequestBuilder {
    match condition {
        Condition::None => request,
        Condition::Exists => request.header(header::IF_MATCH, "*"),
        Condition::Matches(version) => request.header(header::IF_MATCH, format!("\"{version}\"")),
        Condition::Absent => request.header(header::IF_NONE_MATCH, "*"),
        Condition::Differs(version) => request.header(header::IF_NONE_MATCH, format!("\"{version}\"")),
    }
}

fn with_settings(mut request: RequestBuilder, operation: &Operation, put: &Put) -> RequestBuilder {
    if let Some(key) = &operation.idempotency_key {
        request = request.header("idempotency-key", key.as_str());
    }
    if !put.content_type.is_empty() {
        request = request.header(header::CONTENT_TYPE, &put.content_type);
    }
    if let Some(ttl) = put.ttl {
        request = request.query(&[("ttl", format!("{}ms", ttl.as_millis()))]);
    }
    if let Some(durability) = put.durability {
        request = request.query(&[("durability", durability)]);
    }
    request
}

fn text<'a>(response: &'a Response, name: &header::HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

fn version(response: &Response) -> Version {
    text(response, &header::ETAG).and_then(|etag| Version::parse_etag(etag).ok()).unwrap_or_default()
}

/// Milliseconds since the Unix epoch. HTTP dates have whole seconds.
fn date(response: &Response, name: &header::HeaderName) -> Option<u64> {
    let time = httpdate::parse_http_date(text(response, name)?).ok()?;
    u64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn tier(response: &Response) -> Tier {
    let status = response.headers().get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = |tier: &Tier| status.ends_with(&format!("detail={}", tier.as_str()));
    Tier::ALL.into_iter().chain([Tier::Replica]).find(named).unwrap_or(Tier::Memory)
}

async fn problem(response: Response) -> ApiError {
    let version = text(&response, &header::ETAG).and_then(|etag| Version::parse_etag(etag).ok());
    match response.json::<Problem>().await {
        Ok(problem) => {
            let Problem { code, detail, retry_after, trace_id, .. } = problem;
            ApiError { code, detail, retry_after, version, node: None, trace_id: TraceId::parse(&trace_id) }
        }
        Err(_) => GatewayError::Strange.into(),
    }
}
