//! The peer listener's adapter: messages in, the driver's methods, messages out.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairn_api_spec::{
    ApiError, ErrorCode, MAX_FRAMED_VALUE_BYTES, Operation, Outcome, TraceContext,
    events::Position,
    peer::{
        Execute, ExecuteBatch, Executed, ExecutedBatch, List, Listed, PollEvents, PolledEvents, Request, RequestKind,
        Response, ResponseKind, Trace,
    },
};
use cairn_link::Service;
use cairn_operations::{feed::Item, metrics::Kind};
use cairn_server_kit::{
    telemetry::random_trace_id,
    trace::{Span, SpanKind},
};

use crate::{
    cluster::{follow, peers::Peers, transfer::serve_fetch},
    driver::Driver,
    error::NodeError,
};

/// How long a question for events waits for some.
const EVENTS_WAIT: Duration = Duration::from_secs(2);

/// See the module. The driver comes once the node has joined.
pub(crate) struct LinkService {
    driver: Arc<OnceLock<Arc<Driver>>>,
    peers: Arc<Peers>,
}

impl LinkService {
    /// An adapter over a driver that may come later.
    pub(crate) fn new(driver: Arc<OnceLock<Arc<Driver>>>, peers: Arc<Peers>) -> Self {
        Self { driver, peers }
    }

    async fn answer(&self, request: Request) -> Result<ResponseKind, ApiError> {
        let driver = self.driver.get().ok_or(NodeError::NotJoined)?;
        match request.kind {
            Some(RequestKind::Execute(message)) => execute(driver, message).await.map(ResponseKind::Executed),
            Some(RequestKind::ExecuteBatch(message)) => {
                Ok(ResponseKind::ExecutedBatch(execute_batch(driver, message).await))
            }
            Some(RequestKind::List(message)) => list(driver, message).await.map(ResponseKind::Listed),
            Some(RequestKind::Fetch(message)) => Ok(ResponseKind::Fetched(serve_fetch(driver, message).await?)),
            Some(RequestKind::Replicate(message)) => {
                Ok(ResponseKind::Replicated(follow::replicate(driver, &self.peers, message).await?))
            }
            Some(RequestKind::Renew(message)) => {
                driver.begin_lending().await?;
                Ok(ResponseKind::Granted(follow::renew(driver, &message)))
            }
            Some(RequestKind::Collect(message)) => {
                driver.begin_lending().await?;
                Ok(ResponseKind::Collected(follow::collect(driver, &message)))
            }
            Some(RequestKind::Release(message)) => Ok(ResponseKind::Released(follow::release(driver, &message))),
            Some(RequestKind::PollEvents(message)) => {
                poll_events(driver, &message).await.map(ResponseKind::PolledEvents)
            }
            None => Err(ApiError::new(ErrorCode::Internal, "the peer asked something that this release does not know")),
        }
    }
}

async fn execute(driver: &Driver, message: Execute) -> Result<Executed, ApiError> {
    let epoch = message.epoch;
    let mut operation = message.into_operation()?;
    let streamable = !operation.name.is_dots();
    let (kind, asked_in) = (Kind::of(&operation.action), operation.trace);
    let mut span = span(driver, kind, operation.name.bucket(), asked_in);
    operation.trace = span.context().or(asked_in);
    let mut outcome =
        driver.execute(operation, epoch, None).await.map_err(|error| failed(error, kind, asked_in, &mut span))?;
    if let Outcome::Found { tier, .. } | Outcome::NotModified(_, tier) = &outcome {
        span.set("cairn.tier", tier.as_str());
    }
    if let Outcome::Found { value, .. } = &mut outcome
        && streamable
        && value.as_ref().is_some_and(|value| value.len() > MAX_FRAMED_VALUE_BYTES)
    {
        *value = None;
    }
    Ok(outcome.into())
}

async fn execute_batch(driver: &Driver, message: ExecuteBatch) -> ExecutedBatch {
    let (mut answers, mut operations) = (Vec::new(), Vec::new());
    let asked_in = message.operations.iter().find_map(|execute| execute.trace).and_then(Trace::context);
    let span = span(driver, Kind::Batch, "", asked_in);
    for execute in message.operations {
        let epoch = execute.epoch;
        match execute.into_operation() {
            Ok(operation) => {
                let trace = span.context().or(operation.trace);
                operations.push((Operation { trace, ..operation }, epoch));
                answers.push(None);
            }
            Err(error) => answers.push(Some(Err(error))),
        }
    }
    let mut executed = driver.execute_batch(operations, None).await.into_iter();
    let answers = answers.into_iter().filter_map(|refused| refused.or_else(|| executed.next()).map(Into::into));
    ExecutedBatch { answers: answers.collect() }
}

async fn list(driver: &Driver, message: List) -> Result<Listed, ApiError> {
    let (query, partitions, asked_in) = message.into_query();
    let mut span = span(driver, Kind::List, query.bucket(), asked_in);
    let names = driver.list(query, &partitions, span.context().or(asked_in)).await;
    let names = names.map_err(|error| failed(error, Kind::List, asked_in, &mut span))?;
    Ok(Listed { names: names.into_iter().map(Into::into).collect() })
}

/// What has become visible since the master asked last, as soon as there is something, or soon; to a first question at
/// once where to begin.
async fn poll_events(driver: &Driver, message: &PollEvents) -> Result<PolledEvents, ApiError> {
    let after = Position { process: message.process, number: message.after };
    let is_first = after.process == 0;
    let mut subscriber = driver.feed.subscribe((!is_first).then_some(after))?;
    let wait = if is_first { Duration::ZERO } else { EVENTS_WAIT };
    let items = match tokio::time::timeout(wait, subscriber.next()).await {
        Ok(Some(items)) => items,
        Ok(None) => return Err(ApiError::new(ErrorCode::ShuttingDown, "the node is about to stop")),
        Err(_) => Vec::new(),
    };
    let Position { process, number } = subscriber.position();
    let gap = items.iter().any(|(_, item)| *item == Item::Gap);
    let changes = items.iter().filter_map(|(_, item)| match item {
        Item::Change(change) => Some((&**change).into()),
        Item::Gap => None,
    });
    Ok(PolledEvents { process, last: number, gap, events: changes.collect() })
}

/// This node's part of what a master forwarded.
fn span(driver: &Driver, kind: Kind, bucket: &str, asked_in: Option<TraceContext>) -> Span {
    let mut span = driver.tracer.child("execute", SpanKind::Server, asked_in);
    span.set("cairn.operation", kind.as_str());
    span.set("cairn.bucket", bucket);
    span
}

/// Logs a failure under the trace that the master will tell its client. A refusal is the master's to handle.
fn failed(error: NodeError, kind: Kind, asked_in: Option<TraceContext>, span: &mut Span) -> ApiError {
    let mut error = ApiError::from(error);
    if error.code.status() >= 500 {
        let trace_id = asked_in.map_or_else(random_trace_id, |trace| trace.trace_id);
        let span_id = span.context().map(|own| tracing::field::display(own.span_id));
        let (operation, code) = (kind.as_str(), error.code.as_str());
        if error.code == ErrorCode::Internal {
            tracing::error!(%trace_id, span_id, operation, code, "{}", error.detail);
        } else {
            // The master tries again, and has the last word.
            tracing::debug!(%trace_id, span_id, operation, code, "{}", error.detail);
        }
        error.trace_id = Some(trace_id);
    }
    span.fail(error.code.as_str());
    error
}

impl Service for LinkService {
    type Request = Request;
    type Response = Response;

    async fn call(&self, request: Request) -> Response {
        match self.answer(request).await {
            Ok(kind) => Response { kind: Some(kind) },
            Err(error) => Response::failed(error),
        }
    }
}
