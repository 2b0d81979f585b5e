//! Values that are too large for a frame, streamed between the client and the owner without being held here.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, ErrorCode, Operation, Outcome, TraceContext, TraceId, Version,
    error::Problem,
    name::encode_key,
    operation::{Action, Metadata, Put, Tier},
    request::Parameters,
    version::Condition,
};
use cairn_operations::{Reply, ValueStream, metrics::Kind};
use futures_util::{Stream, StreamExt};
use reqwest::{Body, RequestBuilder, Response, StatusCode, header};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{Gateway, GatewayError, attempts::CALL_DEADLINE, routes::Holder, with_upload};

/// How long a transfer may take: what a megabyte a second would take for the largest value there can be.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);
/// Pieces on their way between the two connections.
const PIECES: usize = 8;

impl Gateway {
    /// Stores a value at its owner, which must go on taking it, and answer soon after it has all.
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
        let patience = with_upload(CALL_DEADLINE, operation);
        let length = value.length;
        let (body, mut untouched, progress) = Loan::of(value);
        let answered = async {
            let Action::Put(put) = &operation.action else { return Err(GatewayError::Strange.into()) };
            let mut request = self.request(owner, operation, span.context().or(operation.trace));
            if let Some(length) = length {
                request = request.header(header::CONTENT_LENGTH, length);
            }
            let response = request.body(Body::wrap_stream(body)).send().await.map_err(|error| {
                let code = if error.is_connect() { ErrorCode::PartitionOffline } else { ErrorCode::OutcomeUnknown };
                ApiError::new(code, format!("{} did not take the value: {error}", owner.target.node))
            })?;
            stored(response, put, length.unwrap_or(0)).await
        };
        let result = tokio::select! {
            result = answered => result,
            () = progress.silence(patience) => {
                let detail = format!("{} was silent for {patience:?} on a large value", owner.target.node);
                Err(ApiError::new(ErrorCode::OutcomeUnknown, detail))
            }
        };
        match result {
            Ok(outcome) => Ok(Reply { node: owner.target.node.clone(), outcome, stream: None }),
            Err(error) => {
                span.fail(error.code.as_str());
                let untouched = untouched.try_recv().ok();
                let code = match error.code {
                    // Of a value of which nothing was sent, nothing was stored.
                    ErrorCode::OutcomeUnknown if untouched.is_some() => ErrorCode::PartitionOffline,
                    code => code,
                };
                Err((ApiError { code, node: Some(owner.target.node.to_string()), ..error }, untouched))
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
        let node = holder.target.node.clone();
        let not_given = |why: String| ApiError::new(ErrorCode::PartitionOffline, format!("{node} {why}"));
        // The condition was looked at by whoever said that there is a value.
        let unconditional = Operation { condition: Condition::None, ..operation.clone() };
        let response = match timeout(CALL_DEADLINE, self.request(holder, &unconditional, trace).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(not_given(format!("did not give the value: {error}"))),
            Err(_) => return Err(not_given(format!("did not give the value within {CALL_DEADLINE:?}"))),
        };
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

    /// The request for an operation at a node, without the value.
    fn request(&self, holder: &Holder, operation: &Operation, trace: Option<TraceContext>) -> RequestBuilder {
        let parameters = Parameters { traceparent: trace.map(|trace| trace.to_string()), ..Parameters::of(operation) };
        let (address, key) = (&holder.target.address, encode_key(operation.name.key()));
        let mut request = match &operation.action {
            Action::Put(_) => self.plan.http.put(format!("{address}/keys/{key}")),
            _ => self.plan.http.get(format!("{address}/keys/{key}")),
        };
        for (name, value) in parameters.headers() {
            request = request.header(name, value);
        }
        request.query(&parameters.query().collect::<Vec<_>>()).timeout(TRANSFER_TIMEOUT)
    }
}

/// A value on its way out. When it is dropped before anything was taken of it, it goes back to the lender.
struct Loan {
    value: Option<ValueStream>,
    lender: Option<oneshot::Sender<ValueStream>>,
    progress: Progress,
}

impl Loan {
    fn of(value: ValueStream) -> (Self, oneshot::Receiver<ValueStream>, Progress) {
        let (lender, untouched) = oneshot::channel();
        let progress = Progress::default();
        (Self { value: Some(value), lender: Some(lender), progress: progress.clone() }, untouched, progress)
    }
}

impl Stream for Loan {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(value) = &mut self.value else { return Poll::Ready(None) };
        let poll = value.pieces.poll_recv(cx);
        self.progress.note(poll.is_ready());
        let piece = ready!(poll);
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

/// Since when it is the node that is waited for, and not the client; `None` while it is the client.
#[derive(Clone)]
struct Progress(Arc<Mutex<Option<Instant>>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }
}

impl Progress {
    fn note(&self, is_with_node: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_with_node.then(Instant::now);
    }

    /// Ends when the node has done nothing for so long.
    async fn silence(&self, patience: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let end = since.unwrap_or_else(Instant::now) + patience;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
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

/// Passes a body on as it comes. The task ends with the body, or as soon as nobody takes it or nothing comes.
fn pieces(response: Response) -> ValueStream {
    let length = response.content_length();
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::spawn(async move {
        let mut body = response.bytes_stream();
        loop {
            let piece = match timeout(CALL_DEADLINE, body.next()).await {
                Ok(None) => return,
                Ok(Some(piece)) => piece.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    });
    ValueStream { length, pieces }
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
