//! The gateway: every key through one address. It finds the owner in the cached map and forwards.
//!
//! Operations travel over the link; values too large for a frame are streamed over HTTP. Every request is rebuilt from
//! parsed parts; no byte that a client sent as syntax reaches a node.
//!
//! What surely had no effect is tried again until `link_deadline` has passed: a read, and a write that was not sent or
//! that the node refused because it is not, not yet or no longer the one to serve it. A write of which it is not known
//! whether it was done is tried again only under an idempotency key. Reads that may be stale go to any in-sync node,
//! and to the primary when that one fails.

mod attempts;
mod batch;
mod events;
mod http;
mod routes;
mod watch;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use cairn_api_spec::{
    ApiError, ErrorCode, MAX_FRAMED_VALUE_BYTES, Operation, Outcome, TraceContext,
    data::Asked,
    events::Position,
    operation::{Action, Durability, ListQuery, ListedName},
    peer::{Execute, List, Request, RequestKind, Response, ResponseKind},
};
use cairn_link::{CallError, Client};
use cairn_operations::{DataApi, Reply, ValueStream, feed::Subscriber, metrics::Kind};
use futures_util::{FutureExt, future::BoxFuture};

use self::{
    attempts::Attempts,
    routes::{Holder, Table},
};
pub(crate) use self::{events::Events, watch::Watch};
use crate::{cluster::Cluster, config::Config};

/// How long a connection for large values is kept for the next one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long opening a connection for a large value may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for room on the connection to a node, and how often that is looked at.
const ROOM_WAIT: Duration = Duration::from_millis(500);
const ROOM_LOOK: Duration = Duration::from_millis(10);
/// How long a replica is waited for before the primary is asked.
const REPLICA_DEADLINE: Duration = Duration::from_secs(1);
/// What `durability=object` may take longer than anything else. A node answers within that, so a silent one is found out
/// as soon as with other writes.
const UPLOAD_ALLOWANCE: Duration = Duration::from_secs(3);

/// Why the gateway has no answer of a node.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error("no node serves the partition of this key yet")]
    NoNodes,
    #[error("{0}; nothing was changed")]
    NotSent(CallError),
    #[error("{0}")]
    Read(CallError),
    #[error("{0}: the write may or may not have happened")]
    Write(CallError),
    #[error("the node answered something that this master does not understand")]
    Strange,
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        let code = match &error {
            GatewayError::NoNodes => ErrorCode::NoNodes,
            GatewayError::NotSent(CallError::Overloaded(_)) => ErrorCode::Overloaded,
            GatewayError::NotSent(CallError::TooLarge(_)) => ErrorCode::ValueTooLarge,
            GatewayError::Read(CallError::Unreadable { .. }) | GatewayError::Strange => ErrorCode::Internal,
            GatewayError::NotSent(_) | GatewayError::Read(_) => ErrorCode::PartitionOffline,
            GatewayError::Write(_) => ErrorCode::OutcomeUnknown,
        };
        ApiError::new(code, error.to_string())
    }
}

/// What gateways are made of.
#[derive(Clone)]
pub(crate) struct Plan {
    cluster: Arc<Cluster>,
    http: reqwest::Client,
    deadline: Duration,
    max_value_bytes: usize,
    watch: Watch,
    /// What becomes visible on the nodes.
    pub(crate) events: Arc<Events>,
}

impl Plan {
    /// Gateways over the cluster's map.
    pub(crate) fn new(cluster: Arc<Cluster>, config: &Config, watch: Watch) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Servers close a connection that asks nothing for five seconds after it was opened.
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let max_value_bytes = usize::try_from(config.max_value_bytes).unwrap_or(usize::MAX);
        let events = Arc::new(Events::new());
        Ok(Self { cluster, http, deadline: config.link_deadline, max_value_bytes, watch, events })
    }

    /// A gateway for one worker, with connections of its own.
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway { plan: self.clone(), routes: RwLock::default() }
    }
}

/// See the module.
pub(crate) struct Gateway {
    plan: Plan,
    routes: RwLock<Arc<Table>>,
}

impl Gateway {
    /// The table for the map as it is; made anew when that has changed.
    fn routes(&self) -> Arc<Table> {
        let ring = self.plan.cluster.ring.load();
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.ring_epoch == ring.epoch {
            return known;
        }
        let routes = Arc::new(Table::new(&ring, &known));
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes.clone();
        routes
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.plan.cluster.ring, self.plan.deadline, &self.plan.watch.retries)
    }

    async fn forward(&self, operation: &Operation) -> Result<Reply, ApiError> {
        let mut attempts = self.attempts().of(operation);
        loop {
            let routes = self.routes();
            match self.route(&routes, operation, &attempts).await {
                Ok(mut reply) => {
                    if let Outcome::Explained(explanation) = &mut reply.outcome {
                        explanation.asked = Some(Asked { node: reply.node.to_string(), map_epoch: routes.ring_epoch });
                    }
                    return Ok(reply);
                }
                Err(error) => attempts.again(error, &routes).await?,
            }
        }
    }

    async fn route(&self, routes: &Table, operation: &Operation, attempts: &Attempts<'_>) -> Result<Reply, ApiError> {
        if operation.is_eventual()
            && let Some(replica) = routes.any_in_sync(&operation.name)
        {
            match self.ask(replica, operation, attempts.call_deadline().min(REPLICA_DEADLINE)).await {
                Err(error) if error.code == ErrorCode::NotOwner || error.code.status() >= 500 => {}
                result => return result,
            }
        }
        self.ask(routes.primary(&operation.name)?, operation, attempts.call_deadline()).await
    }

    async fn ask(&self, holder: &Holder, operation: &Operation, deadline: Duration) -> Result<Reply, ApiError> {
        let mut span = self.plan.watch.span(&holder.target, Kind::of(&operation.action), operation.trace);
        let trace = span.context().or(operation.trace);
        self.ask_over_link(holder, operation, trace, deadline).await.map_err(|error| {
            span.fail(error.code.as_str());
            ApiError { node: Some(holder.target.node.to_string()), ..error }
        })
    }

    async fn ask_over_link(
        &self,
        holder: &Holder,
        operation: &Operation,
        trace: Option<TraceContext>,
        deadline: Duration,
    ) -> Result<Reply, ApiError> {
        let deadline = with_upload(deadline, operation);
        let execute = Execute::new(Operation { trace, ..operation.clone() }, holder.epoch);
        let request = Request { kind: Some(RequestKind::Execute(execute)) };
        let outcome: Outcome = match call(&holder.target.link, &request, deadline, operation.action.is_write()).await? {
            ResponseKind::Executed(executed) => executed.try_into()?,
            ResponseKind::Failed(error) => return Err(error.into()),
            _ => return Err(GatewayError::Strange.into()),
        };
        match (&outcome, &operation.action) {
            (Outcome::Found { value: None, .. }, Action::Get) => self.get_over_http(holder, operation, trace).await,
            _ => Ok(Reply { node: holder.target.node.clone(), outcome, stream: None }),
        }
    }

    /// Forwards a value that is not held here: what has been taken of it cannot be sent again.
    async fn stream(&self, operation: &Operation, mut value: ValueStream) -> Result<Reply, ApiError> {
        let mut attempts = self.attempts();
        loop {
            let routes = self.routes();
            let owner = match routes.primary(&operation.name) {
                Ok(owner) => owner,
                Err(error) => {
                    attempts.again(error.into(), &routes).await?;
                    continue;
                }
            };
            value = match self.put_over_http(owner, operation, value).await {
                Ok(reply) => return Ok(reply),
                Err((error, Some(untouched))) => {
                    attempts.again(error, &routes).await?;
                    untouched
                }
                Err((error, None)) => return Err(attempts.last_word(error)),
            };
        }
    }

    async fn list_all(&self, query: &ListQuery, trace: Option<TraceContext>) -> Result<Vec<ListedName>, ApiError> {
        let mut attempts = self.attempts();
        loop {
            let routes = self.routes();
            match self.list_once(&routes, query, trace, attempts.call_deadline()).await {
                Ok(names) => return Ok(names),
                Err(error) => attempts.again(error, &routes).await?,
            }
        }
    }

    /// Asks each node for its first names and merges them: the first of all are among them.
    async fn list_once(
        &self,
        routes: &Table,
        query: &ListQuery,
        trace: Option<TraceContext>,
        deadline: Duration,
    ) -> Result<Vec<ListedName>, ApiError> {
        let pages = routes.by_target()?.into_iter().map(|(target, partitions)| async move {
            let mut span = self.plan.watch.span(&target, Kind::List, trace);
            let list = List::new(query.clone(), partitions, span.context().or(trace));
            let answer = call(&target.link, &Request { kind: Some(RequestKind::List(list)) }, deadline, false).await;
            let listed = answer.and_then(|kind| match kind {
                ResponseKind::Listed(listed) => {
                    listed.names.into_iter().map(TryInto::try_into).collect::<Result<Vec<ListedName>, ApiError>>()
                }
                ResponseKind::Failed(error) => Err(error.into()),
                _ => Err(GatewayError::Strange.into()),
            });
            listed.inspect_err(|error| span.fail(error.code.as_str()))
        });
        let mut names: Vec<ListedName> =
            futures_util::future::try_join_all(pages).await?.into_iter().flatten().collect();
        names.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        names.truncate(query.limit);
        Ok(names)
    }
}

/// The time for an operation, which may have to wait for the object store.
fn with_upload(deadline: Duration, operation: &Operation) -> Duration {
    match operation.action.durability() {
        Some(Durability::Object) => deadline + UPLOAD_ALLOWANCE,
        _ => deadline,
    }
}

async fn call(link: &Client, request: &Request, deadline: Duration, is_write: bool) -> Result<ResponseKind, ApiError> {
    let mut result = link.call::<Response>(request, deadline).await;
    // A burst that fills the connection is over soon, since the node refuses what it has no room for.
    let end = Instant::now() + ROOM_WAIT.min(deadline);
    while matches!(result, Err(CallError::Overloaded(_))) && Instant::now() < end {
        tokio::time::sleep(ROOM_LOOK).await;
        result = link.call::<Response>(request, deadline).await;
    }
    // A connection that broke may have been an old one; nothing is lost by reading once more.
    if !is_write && matches!(result, Err(CallError::Broken(_))) {
        result = link.call::<Response>(request, deadline).await;
    }
    let response = result.map_err(|error| match error {
        error if !error.was_sent() => GatewayError::NotSent(error),
        error if is_write => GatewayError::Write(error),
        error => GatewayError::Read(error),
    })?;
    response.kind.ok_or_else(|| GatewayError::Strange.into())
}

impl DataApi for Gateway {
    fn execute(&self, operation: Operation) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            let began = Instant::now();
            let result = self.forward(&operation).await;
            self.plan.watch.observe(&operation, began, &result);
            result
        }
        .boxed()
    }

    fn batch(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<Outcome, ApiError>>> {
        self.execute_batch(operations).boxed()
    }

    fn put_stream(&self, operation: Operation, value: ValueStream) -> BoxFuture<'_, Result<Reply, ApiError>> {
        async move {
            let began = Instant::now();
            let result = if operation.name.is_dots() {
                match http::collect(&operation, value).await {
                    Ok(whole) => self.forward(&whole).await,
                    Err(error) => Err(error),
                }
            } else {
                self.stream(&operation, value).await
            };
            self.plan.watch.observe(&operation, began, &result);
            result
        }
        .boxed()
    }

    fn list(&self, query: ListQuery, trace: Option<TraceContext>) -> BoxFuture<'_, Result<Vec<ListedName>, ApiError>> {
        async move {
            let began = Instant::now();
            let result = self.list_all(&query, trace).await;
            self.plan.watch.observe_list(&query, trace, began, result.is_ok());
            result
        }
        .boxed()
    }

    fn subscribe(&self, after: Option<Position>) -> BoxFuture<'_, Result<Subscriber, ApiError>> {
        self.plan.events.subscribe(&self.plan.cluster.ring, after).boxed()
    }

    fn max_value_bytes(&self) -> usize {
        self.plan.max_value_bytes
    }

    fn buffer_bytes(&self) -> usize {
        MAX_FRAMED_VALUE_BYTES.min(self.plan.max_value_bytes)
    }
}
